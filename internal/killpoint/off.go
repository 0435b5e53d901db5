//go:build !slicelb_kill

// Package killpoint marks the moments at which a test, with a build of its own, ends
// the process, or has it hang: between two steps after which a successor must find its
// way.
package killpoint

// Here is such a moment. In this build it does nothing.
func Here(string) {}
