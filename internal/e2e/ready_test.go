package e2e

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
)

// playReady is a service that takes its time: it is ready at the first SIGUSR1,
// and ends at the first after SIGTERM.
func playReady([]string) int {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGTERM)
	ended := false
	for s := range signals {
		switch {
		case s == syscall.SIGTERM:
			ended = true
		case ended:
			return 0
		default:
			if err := sdNotify("READY=1"); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
	}
	return 1
}

func sdNotify(text string) error {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(text))
	return err
}
