package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tally is what the calls to one target came to.
type tally struct {
	Target  string         // as asked: tcp:ADDRESS:PORT or udp:ADDRESS:PORT
	Calls   int            // made
	Answers map[string]int // by the backend's own name
	Errors  map[string]int // by the error's text
	Strange int            // answers that did not come from the address that was called
}

// begun is the line that a client without end prints after its first calls.
const begun = "calling\n"

// call calls each target COUNT times, or all in turn until it is terminated if
// COUNT is 0, and prints tallies as JSON. Every call has a socket of its own.
func call(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("call COUNT TARGET…")
	}
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	tallies := make([]tally, len(args)-1)
	for i, target := range args[1:] {
		tallies[i] = tally{Target: target, Answers: map[string]int{}, Errors: map[string]int{}}
	}
	for n := 0; (count == 0 || n < count) && ctx.Err() == nil; n++ {
		for i := range tallies {
			tallies[i].add()
		}
		if count == 0 && n == 0 {
			io.WriteString(os.Stdout, begun)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(tallies)
}

func (t *tally) add() {
	t.Calls++
	name, from, err := ask(t.Target)
	if err != nil {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			t.Errors[errno.Error()]++
		} else {
			t.Errors[err.Error()]++
		}
		return
	}
	t.Answers[name]++
	if _, want, _ := strings.Cut(t.Target, ":"); from != netip.MustParseAddrPort(want) {
		t.Strange++
	}
}

// ask makes one call and returns the backend's name and the peer's address as
// the kernel tells it.
func ask(target string) (name string, from netip.AddrPort, err error) {
	network, address, _ := strings.Cut(target, ":")
	if network == "udp" {
		return askUDP(address)
	}
	conn, err := net.DialTimeout(network, address, 3*time.Second)
	if err != nil {
		return "", netip.AddrPort{}, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(3 * time.Second))
	answer, err := io.ReadAll(conn)
	return string(answer), conn.RemoteAddr().(*net.TCPAddr).AddrPort(), err
}

// askUDP sends from a socket that is not connected, as resolvers do.
func askUDP(address string) (name string, from netip.AddrPort, err error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return "", from, err
	}
	network := "udp4"
	if to.Addr().Is6() {
		network = "udp6"
	}
	conn, err := net.ListenUDP(network, nil)
	if err != nil {
		return "", from, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := conn.WriteToUDPAddrPort([]byte("?"), to); err != nil {
		return "", from, err
	}
	buf := make([]byte, 64)
	n, from, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		return "", from, fmt.Errorf("no answer: %w", err)
	}
	return string(buf[:n]), netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), nil
}
