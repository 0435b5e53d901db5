// Package bpf is the data plane: the programs that put a backend's address in
// place of a VIP's, the maps they read, and the Go side that loads, attaches,
// adopts and writes them.
//
// api.h is the contract between programs and Go; encode.go and policy_encode.go
// alone know how keys and values lie in memory. A Datapath is written by one
// goroutine (package lb's reconciler), one Write at a time, each atomic for the
// programs. The kernel itself writes two things: the cgroups table, when a
// directory is made that the expect tables know, and what sockets remember.
//
// Nothing is pinned. What must outlive the process is handed to a file
// descriptor store (FDs) and taken back from it (Adopt).
package bpf
