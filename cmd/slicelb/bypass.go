package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// bypasses are the ways past VIPs and policy that this host, seen from its root
// directory, leaves open. The numbers are those of docs/cases.md.
func bypasses(root string) []finding {
	var out []finding
	note := func(text, hint string) { out = append(out, finding{"goes past", verdictNote, text, hint}) }
	setting := func(path string) string {
		b, err := os.ReadFile(filepath.Join(root, "proc/sys", path))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	exists := func(path string) bool {
		_, err := os.Stat(filepath.Join(root, path))
		return err == nil
	}

	if v := setting("kernel/io_uring_disabled"); v == "0" || v == "1" { // P3
		note("io_uring with SQPOLL: a ring that is inherited connects as the one that made it", "sysctl kernel.io_uring_disabled=2 closes it, for all")
	}
	if setting("net/mptcp/enabled") == "1" { // P4
		note("MPTCP: later subflows are made by the kernel, outside any group", "the first subflow is seen; strict = true refuses a group such sockets")
	}
	for _, p := range []struct{ path, proto string }{ // P5
		{"sys/module/sctp", "SCTP"}, {"sys/module/dccp", "DCCP"}, {"proc/net/udplite", "UDP-Lite"},
	} {
		if exists(p.path) {
			note(p.proto+": its connect runs no hook", "strict = true refuses a group such sockets")
		}
	}
	if n := setting("user/max_user_namespaces"); n != "" && n != "0" && setting("kernel/unprivileged_userns_clone") != "0" { // P5, P6
		note("raw and packet sockets: users may make them, in a network namespace of their own", "RestrictNamespaces= and RestrictAddressFamilies= of a unit close it")
	}
	for _, name := range []string{"runsc", "kata-runtime", "qemu-system-x86_64"} { // D47
		if path, err := exec.LookPath(name); err == nil {
			note(path+": guests with a network stack of their own run no hook of this host", "")
		}
	}
	return out
}
