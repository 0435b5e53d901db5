package bpf

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Where nothing can be adopted no descriptor is left open, whosever it is: the
// daemon tries again and again, with new copies. // fault F4
func TestAdoptClosesWhatItDoesNotUse(t *testing.T) {
	const theirs, newer = "listen-v2.1", "slb9-000000f3a0c1d2e4-link-slb_connect4-42"
	for _, test := range []struct {
		name  string
		names []string
		want  error
	}{
		{"nothing of ours", []string{theirs}, ErrNothingStored},
		{"of a newer layout", []string{theirs, newer}, ErrLayout},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var fds []NamedFD
			for _, name := range test.names {
				fd, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				fds = append(fds, NamedFD{Name: name, FD: fd})
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := Adopt(fds, Options{}); !errors.Is(err, test.want) {
				t.Errorf("error: %v", err)
			}
			// A pipe ends when its last writer is closed.
			if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("a descriptor is open still: %v", err)
			}
		})
	}
}
