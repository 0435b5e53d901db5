package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// A file that was emptied takes no VIP away; one that says something does, and
// everybody is told.
func TestReloadToNothing(t *testing.T) {
	m := fdstoretest.New(t)
	p := start(t, oneVIP, newMemoryPath(lbtest.DefaultLimits), m.Environment())
	p.await("attached", func(s *api.Status) bool { return s.DataPlane.Attached })
	before := p.dump()
	p.configure("")
	_, err := p.client.Reload(t.Context(), 10*time.Second)
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.BadConfig || !strings.Contains(e.Text, "1 VIP would go; running configuration unchanged") || e.Hint == "" {
		t.Fatalf("reload: %v", err)
	}
	if p.dump() != before {
		t.Error("the maps have changed")
	}
	p.await("degraded", func(s *api.Status) bool {
		return s.State == api.Degraded && strings.Contains(strings.Join(s.Problems, "\n"), e.Hint)
	})

	p.configure("# none\n")
	r, err := p.client.Reload(t.Context(), 10*time.Second)
	if err != nil || !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "no VIP is configured any more: 1 VIP") }) {
		t.Fatalf("%+v, %v", r, err)
	}
	p.await("told", func(s *api.Status) bool {
		return strings.Contains(strings.Join(s.Notes, "\n"), "no VIP is configured any more") &&
			strings.Contains(strings.Join(m.Said(), "\n"), "STATUS=no VIP is configured")
	})
}

// A start that finds a data plane, and no file, goes on with the last good
// configuration.
func TestStartWithFilesLost(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "slicelb.toml")
	for _, tt := range []struct {
		name   string
		text   string
		good   bool // the process before left its configuration
		served string
	}{
		{"a file", strings.ReplaceAll(oneVIP, "vip.db", "vip.new"), true, "new"},
		{"an empty file", "", true, "db"},
		{"a file without VIPs", "# none\n", true, ""},
		{"an empty file, and nobody knows what ran", "", false, "unknown"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			d := bare(t, fdstoretest.New(t), nil)
			d.configPath = path
			d.handed = append(d.handed, fdstoretest.Memfd(t, "slb1-x-map-cells"))
			if tt.good {
				d.handed = append(d.handed, leftGood(t, path, oneVIP))
			}
			if err := d.start(); err != nil {
				t.Fatal(err)
			}
			if d.state != nil {
				defer d.state.Close()
			}
			served := "unknown"
			if d.running != nil {
				served = strings.Join(vipNames(d.running.cfg), " ")
			}
			if served != tt.served || (d.reloadErr != nil) != (tt.text == "") {
				t.Errorf("serves %q, %v", served, d.reloadErr)
			}
			if tt.served == "" && d.running.emptied != 1 {
				t.Error("nobody is told")
			}
		})
	}
}

func vipNames(cfg *config.Config) (names []string) {
	for _, v := range cfg.VIPs {
		names = append(names, v.Name)
	}
	return names
}
