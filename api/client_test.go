package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
)

// A daemon that takes a question and never answers does not hold up who asked.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{socket: "api.sock", http: http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go io.Copy(io.Discard, theirs)
				return ours, nil
			},
		}}}
		if _, err := c.Status(t.Context()); !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "nothing came in "+statusTimeout.String()) {
			t.Error(err)
		}
		if _, err := c.VIP(t.Context(), "db"); !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "nothing came in "+answerTimeout.String()) {
			t.Error(err)
		}
	})
}
