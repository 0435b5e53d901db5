// Package lb turns a configuration and the cgroups that exist into what the
// BPF maps should hold (Compile), compares that with what they do hold (Diff),
// and writes the difference (Reconciler), which is the maps' only writer beside
// the kernel itself.
//
// Order is safety. A program reads the maps at any moment, and the daemon may
// die after any write, so after each write every call must be answered either
// as before or as wanted:
//
//   - what is named is written before what names it: a group's name, backends,
//     slots, a view's cell, a frontend's word;
//   - what decides flips by one 8-byte store: a cell, a frontend's word, a
//     cgroup's word;
//   - what was named is freed after nothing names it and a barrier has passed,
//     so that no program that read the old word is still on its way.
//
// Indexes are stable: what stays keeps its index and generation. Everything
// that Diff must know is in the maps, so that a new process goes on where the
// last one stopped.
package lb
