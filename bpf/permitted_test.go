package bpf

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Who lacks a capability is told that, and not to raise a limit that nothing asks about.
func TestNotPermitted(t *testing.T) {
	for _, code := range []error{unix.EPERM, unix.EACCES} {
		err := notPermitted(fmt.Errorf("map create: %w (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", code))
		if !errors.Is(err, code) || !errors.Is(err, ErrNotSupported) {
			t.Errorf("%v: %v", code, err)
		}
		if text := err.Error(); strings.Contains(text, "MEMLOCK") || !strings.Contains(text, "needs CAP_BPF") {
			t.Errorf("said: %s", text)
		}
	}
}
