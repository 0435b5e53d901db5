package bpf

import (
	"slices"
	"testing"
)

// People are told of every hook at which something is always attached.
func TestHooks(t *testing.T) {
	for _, h := range hooks {
		told := slices.Contains(Hooks, Hook{h.name(), h.attach})
		if want := !h.optional() && !h.tracepoint(); told != want {
			t.Errorf("%s: %t, want %t", h.name(), told, want)
		}
	}
	if len(Hooks) != 9 {
		t.Errorf("%d", len(Hooks))
	}
}
