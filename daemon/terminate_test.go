package daemon

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
)

func TestSweptNotes(t *testing.T) {
	d := &daemon{log: slog.New(slog.DiscardHandler)}
	var s api.Sockets
	if notes := d.sweptNotes(&s, nil); notes != nil || s != (api.Sockets{}) {
		t.Errorf("before a sweep: %q, %+v", notes, s)
	}
	for _, tt := range []struct {
		swept bpf.Swept
		err   error
		want  api.Sockets
		note  string
	}{
		{bpf.Swept{Closed: 3}, nil, api.Sockets{Closed: 3}, ""},
		// Also where nothing says why: processes may be hidden.
		{bpf.Swept{Stuck: 1}, nil, api.Sockets{Closed: 3, Stuck: 1}, "1 socket in other network namespaces is connected to a backend that is gone, or that policy denies: closing them takes the unit's drop-in terminate.conf"},
		{bpf.Swept{Closed: 1, Stuck: 2, Err: errors.New("no")}, nil, api.Sockets{Closed: 4, Stuck: 2}, "2 sockets in other network namespaces are connected to backends that are gone, or that policy denies (no): closing"},
		{bpf.Swept{}, errors.New("no iterators"), api.Sockets{Closed: 4, Stuck: 2}, "no iterators"},
		{bpf.Swept{Left: 1, Err: errors.New("no module")}, nil, api.Sockets{Closed: 4, Stuck: 1}, "are not closed: no module"},
		{bpf.Swept{}, nil, api.Sockets{Closed: 4}, ""},
	} {
		d.noteSwept(tt.swept, tt.err, 0)
		s = api.Sockets{}
		notes := strings.Join(d.sweptNotes(&s, nil), "\n")
		if s != tt.want || (notes == "") != (tt.note == "") || !strings.Contains(notes, tt.note) {
			t.Errorf("%+v, %v: %+v, notes %q; want %+v, %q", tt.swept, tt.err, s, notes, tt.want, tt.note)
		}
	}
}
