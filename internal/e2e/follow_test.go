package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/internal/pages"
)

// walk is a reader of a page who does what it says, in a lab.
type walk struct {
	h       *host
	blocks  []pages.Block
	done    []bool
	replace *strings.Replacer // what differs in a lab
}

// follow opens a page. What the page shows and does not mark as not run must
// have been done when the test ends. replace is pairs of what stands on the
// page and what is done in its place. docs/blocks_test.go looks for calls of
// this function.
func (h *host) follow(page string, replace ...string) *walk {
	h.t.Helper()
	blocks, err := pages.Read(page)
	if err != nil {
		h.t.Fatal(err)
	}
	blocks = slices.DeleteFunc(blocks, func(b pages.Block) bool {
		_, _, isFile := b.File()
		return b.NotRun != "" || b.Lang != "console" && !isFile
	})
	w := &walk{h: h, blocks: blocks, done: make([]bool, len(blocks)), replace: strings.NewReplacer(replace...)}
	h.t.Cleanup(func() {
		if h.t.Failed() || h.t.Skipped() {
			return
		}
		for i, b := range blocks {
			if !w.done[i] {
				h.t.Errorf("%s was not run", b)
			}
		}
	})
	return w
}

// section does what a section shows, in order, and returns what its commands
// printed. A command that fails ends the test.
func (w *walk) section(name string) (outputs []string) {
	w.h.t.Helper()
	found := false
	for i, b := range w.blocks {
		if b.Section == name {
			found = true
			outputs = append(outputs, w.do(i)...)
		}
	}
	if !found {
		w.h.t.Fatalf("no section %q with something to do", name)
	}
	return outputs
}

// all does what is left of the page.
func (w *walk) all() (outputs []string) {
	w.h.t.Helper()
	for i := range w.blocks {
		if !w.done[i] {
			outputs = append(outputs, w.do(i)...)
		}
	}
	return outputs
}

func (w *walk) do(i int) (outputs []string) {
	w.h.t.Helper()
	w.done[i] = true
	b := w.blocks[i]
	if path, text, ok := b.File(); ok {
		if err := w.h.WriteFile(path, []byte(w.replace.Replace(text)), 0o644); err != nil {
			w.h.t.Fatal(err)
		}
		return nil
	}
	for _, command := range b.Commands() {
		code, out := w.h.exit("sh", "-c", "cd /root && "+w.replace.Replace(command))
		if code != 0 {
			w.h.t.Fatalf("%s: %sexit %d\n%s", b, command, code, out)
		}
		outputs = append(outputs, strings.TrimSpace(out))
	}
	return outputs
}

// In the lab the visible cgroup root is not the hierarchy's, which commands
// that look at it themselves have to be told.
var inLab = []string{
	"slicelb doctor", "slicelb doctor --cgroup-root /sys/fs/cgroup",
}

// Every command of docs/operations.md works while all is well.
func TestOperationsPage(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	h.ask("/web.slice/one.scope") // makes the slice
	if ran := h.follow("../../docs/operations.md", inLab...).all(); len(ran) < 10 {
		t.Errorf("%d commands found", len(ran))
	}
}
