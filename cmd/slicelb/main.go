// Command slicelb gives service VIPs to hosts without Kubernetes: a process
// calls connect(VIP), and the kernel puts a backend's address in its place.
//
// This package is the only one that prints or exits. Data goes to standard
// output, messages to standard error; an error says what is wrong, in lower
// case, and a hint says what to do about it.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/fdstore"
)

// env is the process as the commands see it: no command touches a global of
// package os, so that a test can run any of them in its own process.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	lookup         func(string) (string, bool) // environment variables
	unset          func(string) error
	hup            func() (<-chan os.Signal, func()) // of serve
	terminal       bool                              // standard output is one

	// unitState is what systemd says of the daemon's unit; nil: nobody is asked.
	unitState func(context.Context) (active, sub string)
}

func (e *env) getenv(name string) string {
	v, _ := e.lookup(name)
	return v
}

// colour reports whether standard output may carry escape sequences.
func (e *env) colour() bool {
	return e.terminal && e.getenv("NO_COLOR") == "" && e.getenv("TERM") != "dumb"
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	_, err := unix.IoctlGetTermios(1, unix.TCGETS)
	code := run(ctx, &env{
		stdin:    os.Stdin,
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		lookup:   os.LookupEnv,
		unset:    os.Unsetenv,
		hup:      onHangup,
		terminal: err == nil, unitState: unitState,
	}, os.Args[1:])
	stop()
	os.Exit(code)
}

// run is the whole program: it returns what the process exits with.
func run(ctx context.Context, e *env, args []string) int {
	keep := fdstore.HandedOver(e.lookup)
	root := newRoot(e)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	code := report(e, whyNotRunning(ctx, e, err))
	if keep && (code == exitBadConfig || code == exitUsage) {
		// These would prevent a restart, and the service manager would drop the
		// descriptors: the data plane with them.
		code = exitFailed
	}
	return code
}

// onHangup delivers SIGHUP until the returned function is called.
func onHangup() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
