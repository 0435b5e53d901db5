package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
)

// openPTY is a terminal: what a program has, and what a person sees of it.
func openPTY(t *testing.T, columns, rows uint16) (program, person *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { person.Close() })
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows})
	}
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { program.Close() })
	return program, person
}

// shown is what a program has written until now.
type shown struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shown) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *shown) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// The live view in a terminal: it draws, follows a change of size and keys, and
// leaves the terminal as it was.
func TestTopInTerminal(t *testing.T) {
	program, person := openPTY(t, 90, 20)
	socket := filepath.Join(t.TempDir(), "api.sock")
	ln, err := api.Listen(socket, -1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- (&api.Server{Daemon: canned{}, Log: slog.New(slog.DiscardHandler)}).Serve(ctx, ln)
	}()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}

	var seen shown
	go io.Copy(&seen, person)
	await := func(what string, texts ...string) {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		for tick := time.Tick(5 * time.Millisecond); ; <-tick {
			got, all := seen.String(), true
			for _, text := range texts {
				all = all && strings.Contains(got, text)
			}
			if all {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: never saw %q in %q", what, texts, got)
			}
		}
	}
	ended := make(chan int, 1)
	var said shown
	go func() {
		ended <- run(ctx, &env{
			stdin: program, stdout: program, stderr: &said, terminal: true,
			lookup: func(name string) (string, bool) {
				v, ok := map[string]string{"SLICELB_SOCKET": socket, "NO_COLOR": "1", "TERM": "xterm"}[name]
				return v, ok
			},
		}, []string{"top", "-d", "20ms"})
	}()
	await("at first", "slicelb top", "CONN/S", "105.0", "900")
	if _, err := person.WriteString("g"); err != nil {
		t.Fatal(err)
	}
	await("groups", "GROUP", `"jobs/a\x1b[2J.scope"`)
	// A narrow one: what is cut is marked.
	if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 24, Row: 8}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(os.Getpid(), unix.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	await("narrow", "~")
	if _, err := person.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	select {
	case code := <-ended:
		if code != exitOK || said.String() != "" {
			t.Errorf("exit status %d: %s", code, said.String())
		}
	case <-time.After(30 * time.Second):
		t.Fatal("q does not end it")
	}
	await("the end", "\x1b[?1049l")
	after, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal is %+v, was %+v, %v", after, before, err)
	}
}
