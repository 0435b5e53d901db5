package main

import (
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/config"
)

// connection is a socket of this network namespace that is connected, and did
// not accept its connection.
type connection struct {
	cgroup string // below the root, that the socket was made in; "" = it is gone
	peer   netip.AddrPort
	proto  config.Proto
}

// currentConnections asks the kernel for all sockets, with the cgroup of each.
// What was accepted is told by the port that somebody listens on.
func currentConnections(root string) ([]connection, error) {
	paths, err := cgroupPaths(root)
	if err != nil {
		return nil, err
	}
	var out []connection
	for _, proto := range []config.Proto{config.TCP, config.UDP} {
		var all []diagSocket
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			list, err := diagSockets(family, uint8(proto))
			if err != nil {
				return nil, err
			}
			all = append(all, list...)
		}
		listening := map[uint16]bool{}
		for _, s := range all {
			if proto == config.TCP && s.state == tcpListen {
				listening[s.local.Port()] = true
			}
		}
		for _, s := range all {
			if s.peer.Port() == 0 || s.state == tcpListen || s.state == tcpTimeWait || listening[s.local.Port()] {
				continue
			}
			out = append(out, connection{cgroup: paths[s.cgroup], peer: s.peer, proto: proto})
		}
	}
	return out, nil
}

// cgroupPaths is the tree below root, by the cgroups' ids.
func cgroupPaths(root string) (map[uint64]string, error) {
	out := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && path == root:
			return err
		case err != nil || !d.IsDir():
			return nil // it went away meanwhile
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				out[st.Ino] = "/" + strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
			}
		}
		return nil
	})
	return out, err
}
