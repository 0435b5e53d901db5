// Package e2e tests the whole program: the binary, its unit and its
// descriptor store, under a real systemd on a real kernel. It has no code of
// its own outside tests.
package e2e
