// Package live holds tests of the daemon as a process on the real kernel, without
// systemd: in a network namespace and a cgroup of its own, with clients and
// backends that come and go.
package live
