package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

// unread is a daemon that cannot read what is in the kernel.
type unread struct{ Daemon }

func (unread) Status(context.Context) (*Status, error) {
	return &Status{DataPlane: DataPlane{Unread: true}}, nil
}

func (unread) Top(context.Context) (*Top, error) { return nil, Errorf(Busy, "not yet") }

// An answer that is not there yet says when to ask again, and lists that are not known
// are no empty ones.
func TestBusy(t *testing.T) {
	w := httptest.NewRecorder()
	(&Server{Daemon: unread{}}).routes().ServeHTTP(w, httptest.NewRequest(http.MethodGet, Prefix+"/top", nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
		t.Errorf("%d, %v", w.Code, w.Header())
	}
	c := NewClient(serve(t, unread{}))
	var e *Error
	if _, err := c.Listed(t.Context()); !errors.As(err, &e) || e.Code != Busy {
		t.Errorf("listed: %v", err)
	}
	if s, err := c.Status(t.Context()); err != nil || !s.DataPlane.Unread {
		t.Errorf("status: %+v, %v", s, err)
	}
}
