package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/config"
)

// A pipe into which nobody writes holds nothing up that was interrupted; one that
// somebody writes into is read.
func TestCheckPipe(t *testing.T) {
	silent, spoken := filepath.Join(t.TempDir(), "silent"), filepath.Join(t.TempDir(), "spoken")
	for _, pipe := range []string{silent, spoken} {
		if err := unix.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(ctx context.Context, pipe string) (int, string) {
		var said shown
		code := run(ctx, &env{stdout: &said, stderr: &said, lookup: func(string) (string, bool) { return "", false }}, []string{"check", "-c", pipe})
		return code, said.String()
	}
	write := func(pipe string) {
		w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
		if err == nil {
			_, err = w.WriteString("[vip.db]\nfrontends = [\"10.96.0.10:80\"]\n")
			err = errors.Join(err, w.Close())
		}
		if err != nil {
			t.Error(err)
		}
	}
	ctx, interrupt := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer interrupt()
	if code, said := check(ctx, silent); code != exitFailed || !strings.Contains(said, "interrupted") {
		t.Errorf("exit %d: %s", code, said)
	}
	write(silent) // who was interrupted still waits for it
	go write(spoken)
	if code, said := check(t.Context(), spoken); code != exitOK || !strings.Contains(said, "ok: 1 VIP") {
		t.Errorf("exit %d: %s", code, said)
	}
}

// Root checks whether the daemon's user can read what a reload will read, and not
// whether root can.
func TestReadAsDaemon(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root becomes somebody else")
	}
	root := t.TempDir()
	const toml = "[vip.db]\nfrontends = [\"10.96.0.10:80\"]\n"
	file := filepath.Join(root, "etc/slicelb/slicelb.toml")
	roots := filepath.Join(root, "ca.pem")
	for _, tt := range []struct {
		name, path string
		mode       os.FileMode
		toml       string
		as         string
		want       string // "": all is well
	}{
		{"readable", file, 0o644, toml, "nobody", ""},
		{"private", file, 0o600, toml, "nobody", "permission denied"},
		{"private, and root's own", file, 0o600, toml, "", ""},
		{"no such user", file, 0o600, toml, "nobody-at-all", ""},
		{"a private folder", filepath.Dir(file), 0o700, toml, "nobody", "permission denied"},
		{"private certificates", roots, 0o600, toml + "[vip.db.health]\ntype = \"https\"\npath = \"/\"\nca_file = \"" + roots + "\"\n", "nobody", "ca.pem: permission denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			for _, err := range []error{
				os.WriteFile(file, []byte(tt.toml), 0o644), os.WriteFile(roots, []byte("x"), 0o644),
				os.Chmod(filepath.Dir(root), 0o755), os.Chmod(root, 0o755), os.Chmod(filepath.Dir(file), 0o755), os.Chmod(file, 0o644), os.Chmod(tt.path, tt.mode),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			_, _, err := read(t.Context(), config.Installed(root), tt.as)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("%v, want %q", err, tt.want)
			}
			var bad *config.Error
			if errors.As(err, &bad) && tt.path != roots && !strings.Contains(bad.List(nil), "the daemon's user nobody must be able to") {
				t.Error(bad.List(nil))
			}
			if os.Geteuid() != 0 {
				t.Fatal("this process is somebody else now")
			}
			if _, err := os.ReadFile(tt.path); err != nil && tt.path != filepath.Dir(file) {
				t.Errorf("a thread has not come back: %v", err)
			}
		})
	}
}
