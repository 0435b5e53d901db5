package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is open on a host is named, and what is closed is not.
// threat P3, threat P4, threat P5, threat P6, edge D47
func TestBypasses(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "runsc"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		files map[string]string
		path  string
		want  []string
	}{
		"nothing known": {nil, "", nil},
		"all open": {map[string]string{
			"proc/sys/kernel/io_uring_disabled": "0\n", "proc/sys/net/mptcp/enabled": "1\n", "proc/sys/user/max_user_namespaces": "31000\n",
			"sys/module/sctp/refcnt": "", "sys/module/dccp/refcnt": "", "proc/net/udplite": "",
		}, bin, []string{"io_uring", "MPTCP", "SCTP", "DCCP", "UDP-Lite", "packet sockets", "runsc"}},
		"all closed": {map[string]string{
			"proc/sys/kernel/io_uring_disabled": "2\n", "proc/sys/net/mptcp/enabled": "0\n", "proc/sys/user/max_user_namespaces": "0\n",
		}, "", nil},
		"user namespaces are root's": {map[string]string{
			"proc/sys/user/max_user_namespaces": "31000\n", "proc/sys/kernel/unprivileged_userns_clone": "0\n",
		}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for path, text := range tt.files {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", tt.path)
			found := bypasses(root)
			if len(found) != len(tt.want) {
				t.Fatalf("found %+v, want %q", found, tt.want)
			}
			for i, f := range found {
				if f.Verdict != verdictNote || !strings.Contains(f.Text, tt.want[i]) {
					t.Errorf("found %+v, want %q", f, tt.want[i])
				}
			}
		})
	}
}
