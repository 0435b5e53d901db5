// Package api is how a running daemon is asked: HTTP with JSON on a Unix
// socket. It owns the types that cross the socket, the server's limits and who
// may ask for what, and the client. It decides nothing about load balancing:
// the daemon answers through the Daemon interface, and the command line turns
// the answers into tables.
//
// Whoever can open the socket may read; the socket's mode and group say who
// that is. What changes the daemon is for uid 0 and the daemon's own user, by
// the peer credentials that the kernel keeps for each connection.
package api

// Prefix is the path that every endpoint stands below. A change that an older
// client would misread gets a new one.
const Prefix = "/v1"

// DefaultSocket is where the daemon listens unless it is told otherwise.
const DefaultSocket = "/run/slicelb/api.sock"
