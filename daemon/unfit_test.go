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
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch"
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

// A restart with files that do not fit serves what the process before did, and is
// ready: what the manager would kill in its place serves nothing.
func TestRestartThatDoesNotFit(t *testing.T) {
	for _, test := range []struct {
		name, good string // "": nobody knows what ran
		served     string
	}{
		{"the last good one fits", oneVIP, "db"},
		{"nobody knows it", "", ""},
		{"it does not fit either", strings.ReplaceAll(manyFrontends(), "vip.many", "vip.before"), ""},
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
				l := &lastGood{Generation: 1, Path: d.configPath, Files: []string{d.configPath}, TOML: test.good}
				f, err := l.seal()
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				d.handed = append(d.handed, fdstore.FD{Name: l.name(), FD: fd})
			}
			d.kept = newKept(fdstore.New(d.notify, d.handed, m.Ask))
			ctx, cancel := context.WithCancel(t.Context())
			defer d.tasks.Wait()
			defer dp.Close()
			defer cancel()
			if err := d.start(); err != nil {
				t.Fatal(err)
			}
			for range 3 { // of the ticks and walks of the loop
				if d.running != nil {
					d.see(ctx, &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
				} else {
					d.settle(ctx)
				}
			}
			if d.state != nil {
				defer d.state.Close()
			}
			served := ""
			if d.running != nil {
				served = strings.Join(vipNames(d.running.cfg), " ")
			}
			if served != test.served || !d.ready || d.hopeless() != nil {
				t.Errorf("serves %q, ready: %t, %v", served, d.ready, d.applyErr)
			}
			var limit *lb.LimitError
			if !errors.As(d.reloadErr, &limit) || limit.Table != "frontends" {
				t.Errorf("told: %v", d.reloadErr)
			}
			d.publish()
			problems := strings.Join(d.view.Load().problems, "\n")
			if !strings.Contains(problems, "table frontends has 8 entries") || test.served != "" && !strings.Contains(problems, "the last good configuration") {
				t.Errorf("problems:\n%s", problems)
			}
			// What the next process takes for good is what is served.
			if kept := d.state != nil; kept != (test.served != "") {
				t.Errorf("a state is kept: %t", kept)
			}
			if err := d.notify.Barrier(t.Context()); err != nil {
				t.Fatal(err)
			}
			if said := strings.Join(m.Said(), "\n"); !strings.Contains(said, "READY=1") || strings.Contains(said, "have errors") {
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
