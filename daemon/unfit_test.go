package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// manyFrontends takes more than smallLimits have.
func manyFrontends() string {
	var b strings.Builder
	b.WriteString("[vip.many]\nfrontends = [")
	for i := range 20 {
		fmt.Fprintf(&b, "\"10.96.1.%d:80\", ", i)
	}
	b.WriteString("]\n")
	return b.String()
}

func smallLimits() bpf.Limits {
	l := lbtest.DefaultLimits
	l.Frontends = 8
	return l
}

// A restart with files that the kernel cannot be given serves what the process before
// did, and is ready: what the manager would kill in its place serves nothing.
func TestRestartThatDoesNotFit(t *testing.T) {
	for _, test := range []struct {
		name, good string // "": nobody knows what ran
		served     string
		spoil      bool // no state can be made of the files
	}{
		{"the last good one fits", oneVIP, "db", false},
		{"nobody knows it", "", "", false},
		{"it does not fit either", strings.ReplaceAll(manyFrontends(), "vip.many", "vip.before"), "", false},
		{"no state can be made of the files", oneVIP, "db", true},
		{"and nobody knows what ran", "", "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := fdstoretest.New(t)
			dp := newMemoryPath(smallLimits())
			d := bare(t, m, dp)
			d.configPath = filepath.Join(t.TempDir(), "slicelb.toml")
			if err := os.WriteFile(d.configPath, []byte(manyFrontends()), 0o644); err != nil {
				t.Fatal(err)
			}
			adopted, err := unix.MemfdCreate("map", unix.MFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			d.handed = []fdstore.FD{{Name: "slb1-x-map-cells", FD: adopted}}
			if test.good != "" {
				d.handed = append(d.handed, leftGood(t, d.configPath, test.good))
			}
			d.kept = newKept(fdstore.New(d.notify, d.handed, m.Ask))
			ctx, cancel := context.WithCancel(t.Context())
			defer d.tasks.Wait()
			defer dp.Close()
			defer cancel()
			if err := d.start(); err != nil {
				t.Fatal(err)
			}
			if d.publish(); !d.view.Load().status.DataPlane.Before {
				t.Error("it is not said that what the process before left serves on")
			}
			said := "table frontends has 8 entries"
			if test.spoil {
				d.running.cfg.VIPs[0].Except = []string{"nobody"}
				said = `unknown group "nobody"`
			}
			for range 3 { // of the ticks and walks of the loop
				d.see(ctx, &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
				d.settle(ctx)
			}
			if d.state != nil {
				defer d.state.Close()
			}
			served := ""
			if d.applied {
				served = strings.Join(vipNames(d.running.cfg), " ")
			}
			if served != test.served || !d.ready || !d.attached || d.hopeless() != nil {
				t.Errorf("serves %q, ready: %t, %v", served, d.ready, d.applyErr)
			}
			if d.reloadErr == nil || !strings.Contains(d.reloadErr.Error(), said) {
				t.Errorf("told: %v", d.reloadErr)
			}
			d.publish()
			if d.view.Load().status.DataPlane.Before {
				t.Error("attached, and said not to be")
			}
			problems := strings.Join(d.view.Load().problems, "\n")
			if !strings.Contains(problems, said) || strings.Contains(problems, "the last good configuration") != (test.served != "") ||
				strings.Contains(problems, "what the process before left serves on") != (test.served == "") || !strings.Contains(problems, "the start at ") {
				t.Errorf("problems:\n%s", problems)
			}
			// What the next process takes for good is what is served.
			if kept := d.state != nil; kept != (test.served != "") {
				t.Errorf("a state is kept: %t", kept)
			}
			if err := d.notify.Barrier(t.Context()); err != nil {
				t.Fatal(err)
			}
			if said := strings.Join(m.Said(), "\n"); !strings.Contains(said, "READY=1") || strings.Contains(said, "have errors") || strings.Contains(said, "without a configuration") {
				t.Errorf("said\n%s", said)
			}
		})
	}
}

// A first start has nothing to fall back to: it ends, and says what is wanted.
func TestFirstStartThatDoesNotFit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "slicelb.toml")
	if err := os.WriteFile(path, []byte(manyFrontends()), 0o644); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), Options{
		Config: path, CgroupRoot: kerneltest.NewCgroup(t).Path, Socket: filepath.Join(dir, "api.sock"),
		Log: io.Discard, Lookup: fdstoretest.LookupIn(nil), Unset: func(string) error { return nil },
		open: func(bpf.Options, []bpf.NamedFD) (opened, error) {
			return opened{dataPath: newMemoryPath(smallLimits())}, nil
		},
	})
	var bad *ConfigError
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "table frontends has 8 entries, 20 are wanted") {
		t.Errorf("%v", err)
	}
}

// A first start with files that no state can be made of ends, too.
func TestFirstStartThatCannotBeCompiled(t *testing.T) {
	d := bare(t, fdstoretest.New(t), newMemoryPath(lbtest.DefaultLimits))
	d.running = sourceOf(t, oneVIP)
	d.running.cfg.VIPs[0].Except = []string{"nobody"}
	d.see(t.Context(), &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
	var bad *ConfigError
	if err := d.hopeless(); !errors.As(err, &bad) || !strings.Contains(err.Error(), `unknown group "nobody"`) {
		t.Errorf("%v", err)
	}
	if !d.trim.Load() {
		t.Error("the memory that it took stays")
	}
}

// webCgroups is what there is for src, with n cgroups of the group web.
func webCgroups(src *source, n int) *unitwatch.Snapshot {
	s := &unitwatch.Snapshot{Tree: src.tree, Complete: true}
	for i := range n {
		s.Cgroups = append(s.Cgroups, unitwatch.Cgroup{
			ID: uint64(100 + i), Path: fmt.Sprintf("/web.slice/%d", i), Match: &anchor.Match{Group: "web", Anchor: true}, Group: "web",
		})
	}
	return s
}

// Where nothing could be served but what the kernel has, the files are tried again
// when what stood in the way is gone, and are known for good from then on.
func TestFilesThatFitLater(t *testing.T) {
	limits := lbtest.DefaultLimits
	limits.Cgroups = 16
	d := bare(t, fdstoretest.New(t), newMemoryPath(limits))
	ctx := t.Context()
	d.inherited, d.lockHeld = true, true
	d.running = sourceOf(t, "[group.web]\nslices = [\"/web.slice/*\"]\n"+oneVIP)
	see := func(cgroups int) {
		d.see(ctx, webCgroups(d.running, cgroups))
		d.publish()
	}
	see(20)
	if !d.ready || d.applied || d.state != nil || !strings.Contains(strings.Join(d.view.Load().problems, "\n"), "table cgroups has 16 entries") {
		t.Errorf("ready %t, %v, problems %q", d.ready, d.applyErr, d.view.Load().problems)
	}
	see(3)
	if d.state == nil {
		t.Fatal("nothing is kept for the next process")
	}
	defer d.state.Close()
	if problems := d.view.Load().problems; !d.applied || len(problems) > 0 {
		t.Errorf("%v, problems %q", d.applyErr, problems)
	}
}

// Files that have errors, and a last good configuration that this version cannot give
// the kernel: nothing is left to serve but what the kernel has.
func TestRestartWithNothingToServe(t *testing.T) {
	m := fdstoretest.New(t)
	dp := newMemoryPath(smallLimits())
	d := bare(t, m, dp)
	d.lockHeld = true
	d.configPath = filepath.Join(t.TempDir(), "slicelb.toml")
	if err := os.WriteFile(d.configPath, []byte("[vip.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.handed = []fdstore.FD{leftGood(t, d.configPath, manyFrontends())}
	d.kept = newKept(fdstore.New(d.notify, d.handed, m.Ask))
	ctx, cancel := context.WithCancel(t.Context())
	defer d.tasks.Wait()
	defer dp.Close()
	defer cancel()
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	for range 4 { // of the ticks and walks of the loop
		if d.running != nil {
			d.see(ctx, &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
		}
		d.settle(ctx)
	}
	d.publish()
	if !d.ready || !d.attached || d.applyErr != nil || d.running != nil || d.hopeless() != nil {
		t.Errorf("ready: %t, attached: %t, %v", d.ready, d.attached, d.applyErr)
	}
	problems := strings.Join(d.view.Load().problems, "\n")
	if !strings.Contains(problems, "what the process before left is served") || !strings.Contains(problems, "the start at ") {
		t.Errorf("problems:\n%s", problems)
	}
	// What was stored stays there, for a version that can use it.
	if err := d.notify.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if said := strings.Join(m.Said(), "\n"); d.state != nil || !strings.Contains(said, "READY=1") || strings.Contains(said, "FDSTOREREMOVE") {
		t.Errorf("said\n%s", said)
	}
}
