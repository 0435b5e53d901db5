package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNotes(t *testing.T) {
	const (
		ready  = "# Changelog\n\n## 1.2.0, 2027-01-31\n\n- New.\n\n## 1.1.0, 2027-01-01\n\n- Old.\n"
		before = "# Changelog\n\n## Unreleased\n\n- New.\n"
	)
	tests := []struct {
		describe, changelog string
		want, err           string
	}{
		{"v1.2.0", ready, "- New.\n", ""},
		{"v1.2.1", ready, "", "begins with 1.2.0"},
		{"v1.2.0", before, "", "begins with Unreleased"},
		{"v1.2.0-dirty", ready, "", "no release"},
		{"v1.2.0-3-gabc1234", ready, "", "no release"},
		{"0123abc", ready, "", "no release"},
	}
	for _, tt := range tests {
		p := pack{top: t.TempDir(), describe: tt.describe, release: true}
		if err := os.WriteFile(filepath.Join(p.top, "CHANGELOG.md"), []byte(tt.changelog), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := p.notes()
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %q, %v; want %q, %q", tt.describe, got, err, tt.want, tt.err)
		}
	}
}

func TestPublish(t *testing.T) {
	dir := t.TempDir()
	p := pack{out: dir}
	for name, text := range map[string]string{"b.rpm": "b", "a.deb": "a", "older.deb": "x"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if name != "older.deb" {
			p.made = append(p.made, path)
		}
	}
	if err := p.publish("- New.\n"); err != nil {
		t.Fatal(err)
	}
	const want = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  a.deb\n" +
		"3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d  b.rpm\n"
	if got, _ := os.ReadFile(filepath.Join(dir, "SHA256SUMS")); string(got) != want {
		t.Errorf("sums:\n%s", got)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "NOTES.md")); string(got) != "- New.\n" {
		t.Errorf("notes: %q", got)
	}
}
