package api

import (
	"context"
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
		ours, theirs := net.Pipe()
		go io.Copy(io.Discard, theirs)
		defer theirs.Close()
		c := &Client{socket: "api.sock", http: http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext:       func(context.Context, string, string) (net.Conn, error) { return ours, nil },
		}}}
		if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "no answer in "+answerTimeout.String()) {
			t.Error(err)
		}
	})
}
