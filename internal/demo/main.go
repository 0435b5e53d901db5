// Command demo shows slicelb at work on one machine in less than a minute: it
// boots a throwaway systemd (see internal/lab), installs the daemon in it with
// its unit, starts three backends and two client slices, one of them with a backend
// of its own, sends traffic, drains a backend and starts another under load, and
// leaves nothing behind. `make demo` runs it.
//
// The same program is, inside the lab, the backends and the clients.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(runMain()) }

func runMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil:
		return 0
	case interrupted:
		fmt.Fprintln(os.Stderr, "demo: interrupted; the laboratory is gone")
		return 130
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "serve": // a backend: NAME PORT
			if len(args) == 3 {
				return serve(ctx, args[1], args[2])
			}
		case "call": // a client: COUNT TARGET…
			return call(ctx, args[1:])
		}
	}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	binary := flags.String("slicelb", "bin/slicelb", "the program to show")
	top := flags.String("top", ".", "the repository's top directory")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	return show(ctx, os.Stdout, *binary, *top)
}
