package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/sys/unix"
)

const oneVIP = "[vip.a]\nfrontends = [\"10.96.0.1:80\"]\n"

// tree plants files and returns their root.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	var list []txtar.File
	for i := 0; i < len(files); i += 2 {
		list = append(list, txtar.File{Name: files[i], Data: []byte(files[i+1])})
	}
	plant(t, root, list)
	return root
}

func vips(c *Config) (names []string) {
	for _, v := range c.VIPs {
		names = append(names, v.Name)
	}
	return names
}

func TestFromPath(t *testing.T) {
	root := tree(t,
		"etc/slicelb/slicelb.toml", oneVIP,
		"etc/slicelb/conf.d/10-b.toml", strings.ReplaceAll(oneVIP, "vip.a", "vip.b"),
		"usr/lib/slicelb/conf.d/20-c.toml", strings.ReplaceAll(oneVIP, "vip.a", "vip.c"),
		"usr/lib/other", "",
	)
	for _, f := range []string{"b", "c"} { // other addresses
		name := map[string]string{"b": "etc/slicelb/conf.d/10-b.toml", "c": "usr/lib/slicelb/conf.d/20-c.toml"}[f]
		text := fmt.Sprintf("[vip.%s]\nfrontends = [\"10.96.1.%d:80\"]\n", f, f[0])
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, path string
		want       []string
	}{
		{"file alone", "etc/slicelb/slicelb.toml", []string{"a"}},
		{"drop-in alone", "etc/slicelb/conf.d/10-b.toml", []string{"b"}},
		{"folder", "etc/slicelb", []string{"a", "b"}},
		{"folder without main file", "usr/lib/slicelb", []string{"c"}},
		{"whole tree", "", []string{"a", "b", "c"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := fromPath(filepath.Join(root, tt.path))
			if err != nil {
				t.Fatal(err)
			}
			c, _, err := s.Load()
			if err != nil {
				t.Fatal(errorText(err))
			}
			if diff := cmp.Diff(tt.want, vips(c)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, path := range []string{"usr", "nothing"} {
		if _, err := fromPath(filepath.Join(root, path)); err == nil {
			t.Errorf("bad path %q: no error", path)
		}
	}
	installed, err := fromPath("/etc/slicelb/..//slicelb/slicelb.toml")
	if err == nil && !installed.Enforce {
		t.Error("an installed file's owner does not matter")
	}
}

// A person may check what comes through a pipe; an installed file is a file.
func TestPipe(t *testing.T) {
	root := tree(t, "etc/slicelb/slicelb.toml", "", "etc/slicelb/conf.d/x", "")
	fifo := filepath.Join(root, "etc/slicelb/conf.d/10-pipe.toml")
	if err := unix.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Installed(root).Load(); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("installed: %v", err)
	}

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString(oneVIP); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s, err := fromPath(fmt.Sprintf("/proc/self/fd/%d", r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := s.Load()
	if err != nil {
		t.Fatal(errorText(err))
	}
	if got := vips(c); len(got) != 1 {
		t.Errorf("VIPs %v, want one", got)
	}
}

func TestOwnership(t *testing.T) {
	for _, tt := range []struct {
		name, path string
		mode       os.FileMode
		uid        int
		want       string // "" = OK
	}{
		{"OK not for all", "etc/slicelb/slicelb.toml", 0o640, -1, ""},
		{"bad group-writable file", "etc/slicelb/slicelb.toml", 0o664, -1, "slicelb.toml: error: can be written by others than its owner (mode 0664)"},
		{"bad world-writable drop-in", "etc/slicelb/conf.d/10-a.toml", 0o646, -1, "10-a.toml: error: can be written by others than its owner (mode 0646)"},
		{"bad target of a link", "run/slicelb/shared.toml", 0o666, -1, "20-link.toml: error: can be written by others"},
		{"bad folder", "etc/slicelb", 0o777, -1, "etc/slicelb: error: can be written by others"},
		{"bad folder of drop-ins", "etc/slicelb/conf.d", 0o775, -1, "etc/slicelb/conf.d: error: can be written by others"},
		{"bad owner", "etc/slicelb/conf.d/10-a.toml", 0o644, 12345, "10-a.toml: error: belongs to uid 12345, not to root"},
		{"bad folder's owner", "etc/slicelb/conf.d", 0o755, 12345, "conf.d: error: belongs to uid 12345, not to root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := tree(t,
				"etc/slicelb/slicelb.toml", oneVIP,
				"etc/slicelb/conf.d/10-a.toml", "",
				"run/slicelb/shared.toml", "",
				"etc/slicelb/conf.d/20-link.toml", "-> /run/slicelb/shared.toml",
			)
			name := filepath.Join(root, tt.path)
			if err := os.Chmod(name, tt.mode); err != nil {
				t.Fatal(err)
			}
			if tt.uid >= 0 {
				if os.Geteuid() != 0 {
					t.Skip("needs root")
				}
				if err := os.Chown(name, tt.uid, -1); err != nil {
					t.Fatal(err)
				}
			}
			s := Installed(root)
			c, warnings, err := s.Load()
			if tt.want == "" {
				if err != nil || len(warnings) != 0 {
					t.Fatal(warnings, err)
				}
				return
			}
			if err == nil || c != nil {
				t.Fatal("not refused")
			}
			if text := errorText(err); !strings.Contains(text, tt.want) || len(err.(*Error).Problems) != 1 {
				t.Errorf("want %q alone:\n%s", tt.want, text)
			}

			// Where nothing is installed, it is a warning.
			s.Enforce = false
			c, warnings, err = s.Load()
			if err != nil || len(warnings) != 1 || warnings[0].Severity != SeverityWarning || len(c.VIPs) != 1 {
				t.Errorf("elsewhere: %v, %v", warnings, err)
			}
		})
	}
}

// The folder that systemd makes for the daemon is the daemon's; what lies in it is
// root's all the same.
func TestDaemonsFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const daemon, other = 12345, 12346
	type change func(t *testing.T, run string)
	chown := func(name string, uid int) change {
		return func(t *testing.T, run string) {
			if err := os.Lchown(filepath.Join(run, name), uid, -1); err != nil {
				t.Fatal(err)
			}
		}
	}
	link := func(uid int) change {
		return func(t *testing.T, run string) {
			if err := os.Rename(filepath.Join(run, "conf.d"), filepath.Join(run, "old")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("old", filepath.Join(run, "conf.d")); err != nil {
				t.Fatal(err)
			}
			chown("conf.d", uid)(t, run)
		}
	}
	for _, tt := range []struct {
		name string
		do   []change
		want string // "" = OK
	}{
		{"OK the daemon's folder", nil, ""},
		{"OK root's link in it", []change{link(0)}, ""},
		{"bad the daemon's link in it", []change{link(daemon)}, "run/slicelb/conf.d: error: belongs to uid 12345, not to root"},
		{"bad the daemon's folder of drop-ins", []change{chown("conf.d", daemon)}, "run/slicelb/conf.d: error: belongs to uid 12345, not to root"},
		{"bad the daemon's file", []change{chown("conf.d/10-a.toml", daemon)}, "10-a.toml: error: belongs to uid 12345, not to root"},
		{"bad somebody else's folder", []change{chown("", other)}, "run/slicelb: error: belongs to uid 12346, not to root"},
		{"bad a folder for all to write", []change{func(t *testing.T, run string) {
			if err := os.Chmod(run, 0o777); err != nil {
				t.Fatal(err)
			}
		}}, "run/slicelb: error: can be written by others"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := tree(t, "etc/slicelb/slicelb.toml", "", "run/slicelb/conf.d/10-a.toml", oneVIP)
			run := filepath.Join(root, "run/slicelb")
			chown("", daemon)(t, run)
			for _, do := range tt.do {
				do(t, run)
			}
			s := Installed(root)
			s.isDaemon = func(uid uint32) bool { return uid == daemon }
			c, warnings, err := s.Load()
			switch {
			case tt.want != "":
				if err == nil || !strings.Contains(errorText(err), tt.want) {
					t.Errorf("want %q: %v", tt.want, err)
				}
			case err != nil:
				t.Error(errorText(err))
			case len(warnings) > 0 || len(c.VIPs) != 1:
				t.Errorf("warnings %v, VIPs %v", warnings, vips(c))
			}
		})
	}

	// Another folder is not the daemon's, whoever owns it.
	root := tree(t, "etc/slicelb/slicelb.toml", oneVIP)
	if err := os.Chown(filepath.Join(root, "etc/slicelb"), daemon, -1); err != nil {
		t.Fatal(err)
	}
	s := Installed(root)
	s.isDaemon = func(uint32) bool { return true }
	if _, _, err := s.Load(); err == nil {
		t.Error("/etc/slicelb may belong to the daemon's user")
	}
}

// A file that was named alone is read as it is; by the daemon, only where it is.
func TestEnforceAlone(t *testing.T) {
	root := tree(t, "a/real.toml", oneVIP, "a/link.toml", "-> real.toml", "b/out.toml", "-> ../a/real.toml")
	for _, tt := range []struct {
		path       string
		mode       os.FileMode // of its folder
		serveError string
	}{
		{"a/real.toml", 0o755, ""},
		{"a/link.toml", 0o755, ""},
		{"b/out.toml", 0o755, "leaves the configuration's folders"},
		{"a/real.toml", 0o777, "can be written by others"},
		{"a/real.toml", 0o777 | os.ModeSticky, ""},
	} {
		name := filepath.Join(root, tt.path)
		if err := os.Chmod(filepath.Dir(name), tt.mode); err != nil {
			t.Fatal(err)
		}
		s, err := fromPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Load(); err != nil {
			t.Errorf("check %s: %v", tt.path, err)
		}
		if os.Geteuid() != 0 {
			continue // the files belong to somebody else than root
		}
		s.Enforce = true
		_, _, err = s.Load()
		if ok := err == nil; ok != (tt.serveError == "") || !ok && !strings.Contains(err.Error(), tt.serveError) {
			t.Errorf("serve %s in a folder of mode %v: %v", tt.path, tt.mode, err)
		}
	}
}

// root reads what the daemon's user cannot.
func TestPrivate(t *testing.T) {
	root := tree(t, "etc/slicelb/slicelb.toml", oneVIP)
	if err := os.Chmod(filepath.Join(root, "etc/slicelb/slicelb.toml"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, warnings, err := Installed(root).Load()
	if err != nil {
		t.Fatal(errorText(err))
	}
	if warned := len(warnings) == 1; warned != (os.Geteuid() == 0) {
		t.Errorf("warnings %v as uid %d", warnings, os.Geteuid())
	}
}

func TestUnreadable(t *testing.T) {
	root := tree(t, "etc/slicelb/slicelb.toml", oneVIP)
	if err := os.Chmod(filepath.Join(root, "etc/slicelb/slicelb.toml"), 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // root reads everything: be nobody for a moment
		if err := syscall.Seteuid(65534); err != nil {
			t.Fatal(err)
		}
		defer syscall.Seteuid(0)
	}
	if _, _, err := Installed(root).Load(); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Error(err)
	}
}

func TestFileBounds(t *testing.T) {
	comment := strings.Repeat("#", maxFileBytes-1) + "\n"
	root := tree(t, "etc/slicelb/slicelb.toml", comment)
	if _, _, err := Installed(root).Load(); err != nil {
		t.Error("1 MiB:", err)
	}
	root = tree(t, "etc/slicelb/slicelb.toml", "#"+comment)
	if _, _, err := Installed(root).Load(); err == nil || !strings.Contains(err.Error(), "longer than 1048576 bytes") {
		t.Error("more than 1 MiB:", err)
	}

	var files []string
	for i := range maxFiles {
		files = append(files, fmt.Sprintf("etc/slicelb/conf.d/%04d.toml", i), "")
	}
	if _, _, err := Installed(tree(t, files...)).Load(); err == nil || !strings.Contains(err.Error(), "more than 1024 files") {
		t.Error("many files:", err)
	}
}

func TestCountBounds(t *testing.T) {
	many := func(n int, one func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(one(i))
		}
		return b.String()
	}
	address := func(i int) string { return fmt.Sprintf("10.%d.%d.%d:80", i>>16, i>>8&255, i&255) }
	for _, tt := range []struct{ name, text, want string }{
		{"groups", many(maxGroups+1, func(i int) string { return fmt.Sprintf("group.g%d.slices = [\"g%d.slice\"]\n", i, i) }), "more than 16384 groups"},
		{"slices", "[group.g]\nslices = [" + many(maxAnchors+1, func(i int) string { return fmt.Sprintf("\"s%d.slice\", ", i) }) + "]\n", "more than 32768 slices in all groups"},
		{"VIPs", many(maxVIPs+1, func(i int) string { return fmt.Sprintf("vip.v%d.frontends = [%q]\n", i, address(i)) }), "more than 16384 VIPs"},
		{"split_metrics", many(9, func(i int) string {
			return fmt.Sprintf("[group.g%d]\nslices = [\"g%d.slice\"]\nsplit = \"*\"\nsplit_metrics = 1000\n", i, i)
		}), "9000 children with 1 counter each (a VIP has one for each family, and the networks of rules have one) are 9000, more than 8192; at most 8192 children"},
		{"split_metrics and VIPs", many(5, func(i int) string {
			return fmt.Sprintf("[vip.v%d]\nfrontends = [\"10.0.0.%d:80\", \"10.0.0.%d:81\", \"[fd00::%d]:80\"]\n", i, i, i, i)
		}) + "[group.g]\nslices = [\"g.slice\"]\nsplit = \"*\"\nsplit_metrics = 745\n", "745 children with 11 counters each (a VIP has one for each family, and the networks of rules have one) are 8195, more than 8192; at most 744 children"},
		{"frontends", "[vip.a]\nfrontends = [" + many(MaxPerVIP+1, func(i int) string { return fmt.Sprintf("%q, ", address(i)) }) + "]\n", "[vip.a] has more than 4096 frontends"},
		{"backends", oneVIP + "backend = [" + many(MaxPerVIP+1, func(i int) string { return fmt.Sprintf("{ address = %q }, ", address(i)) }) + "]\n", "[vip.a] has more than 4096 backends"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("a.toml", []byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("want %q, got %v", tt.want, err)
			}
		})
	}
}

// Whatever a file holds, what is shown of it is bounded.
func TestManyProblems(t *testing.T) {
	_, err := Parse("a.toml", []byte(strings.Repeat("x", 1)+" = 1\n"+strings.Join(numbered(5000), "")))
	var bad *Error
	if !errors.As(err, &bad) || len(bad.Problems) != maxProblems+1 {
		t.Fatalf("%d problems, want %d", len(bad.Problems), maxProblems+1)
	}
	if !strings.Contains(errorText(err), "more than 1000 errors; the rest is not shown") {
		t.Error("does not say that there are more")
	}
}

func numbered(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("x%d = 1\n", i))
	}
	return lines
}

// fault F18
func TestReplacedWhileRead(t *testing.T) {
	root := tree(t, "etc/slicelb/slicelb.toml", oneVIP)
	main := filepath.Join(root, "etc/slicelb/slicelb.toml")
	drop := filepath.Join(root, "etc/slicelb/conf.d/10-a.toml")
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name   string
		change func()
		want   []string
	}{
		{"replaced", func() { write(main, strings.ReplaceAll(oneVIP, "vip.a", "vip.b")) }, []string{"b"}},
		{"added", func() { write(drop, "[vip.c]\nfrontends = [\"10.96.0.2:80\"]\n") }, []string{"b", "c"}},
		{"masked", func() { os.Remove(drop); os.Symlink("/dev/null", drop) }, []string{"b"}},
		{"removed", func() { os.Remove(drop) }, []string{"b"}},
	} {
		s := Installed(root)
		reads := 0
		s.settled = func() {
			if reads++; reads == 1 {
				tt.change()
			}
		}
		c, _, err := s.Load()
		if err != nil {
			t.Fatal(tt.name, errorText(err))
		}
		if diff := cmp.Diff(tt.want, vips(c)); diff != "" || reads != 2 {
			t.Errorf("%s, read %d times (-want +got):\n%s", tt.name, reads, diff)
		}
	}

	s := Installed(root)
	n := 0
	s.settled = func() { n++; write(main, oneVIP+strings.Repeat("#\n", n)) }
	if c, _, err := s.Load(); c != nil || err == nil || !strings.Contains(err.Error(), "changes while it is read") {
		t.Errorf("changing all the time: %v, %v", c, err)
	}
}

func TestNoNewline(t *testing.T) {
	root := tree(t, "etc/slicelb/slicelb.toml", strings.TrimSuffix(oneVIP, "\n"))
	c, warnings, err := Installed(root).Load()
	if err != nil || len(c.VIPs) != 1 || len(warnings) != 1 || warnings[0].Hint != "cut short?" {
		t.Errorf("%v, %v", warnings, err)
	}
}

func TestProblemJSON(t *testing.T) {
	_, err := Parse("a.toml", []byte("[vip.db]\nfrontend = []\nfrontends = [\"10.0.0.1:80\"]\n"))
	got, jerr := json.MarshalIndent(err.(*Error).Problems, "", "  ")
	if jerr != nil {
		t.Fatal(jerr)
	}
	want := `[
  {
    "position": {
      "file": "a.toml",
      "line": 2,
      "column": 1
    },
    "severity": "error",
    "message": "unknown key \"frontend\" in [vip.db]",
    "hint": "did you mean \"frontends\"?",
    "source_line": "frontend = []",
    "span": 8
  }
]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
