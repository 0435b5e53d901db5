package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseChangelog(t *testing.T) {
	const text = `# Changelog

For users. Newest first.

## Unreleased

First version.

- ` + "`one`" + ` thing
  on two lines.
- Another.

## 1.2.0, 2027-01-31

- Older.
`
	got, err := parseChangelog(text)
	if err != nil {
		t.Fatal(err)
	}
	want := []entry{
		{version: "Unreleased", changes: []string{"`one` thing on two lines.", "Another."},
			text: "First version.\n\n- `one` thing\n  on two lines.\n- Another.\n"},
		{version: "1.2.0", date: time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC), changes: []string{"Older."}, text: "- Older.\n"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(entry{})); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "# Changelog\n", "## 1.2\n", "## 1.2.0\n", "## 1.2.0, 2027-02-30\n", "## unreleased\n"} {
		if _, err := parseChangelog(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestChangelogs(t *testing.T) {
	at := time.Date(2027, 2, 1, 12, 0, 0, 0, time.UTC)
	entries := packed([]entry{
		{version: unreleased, changes: []string{strings.TrimSpace(strings.Repeat("word ", 16)), "Another."}},
		{version: "1.2.0", date: time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC), changes: []string{"Older."}},
	}, "1.2.0+3.abc", at)
	const debian = `slicelb (1.2.0+3.abc-1) unstable; urgency=medium

  * word word word word word word word word word word word word word word word
    word
  * Another.

 -- slicelb maintainers <slicelb@users.noreply.github.com>  Mon, 01 Feb 2027 12:00:00 +0000

slicelb (1.2.0-1) unstable; urgency=medium

  * Older.

 -- slicelb maintainers <slicelb@users.noreply.github.com>  Sun, 31 Jan 2027 00:00:00 +0000
`
	if diff := cmp.Diff(debian, string(debianChangelog(entries))); diff != "" {
		t.Error(diff)
	}
	got, err := rpmChangelog(entries)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"semver": "1.2.0+3.abc-1"`, `"date": "2027-02-01T12:00:00Z"`, `word\n  word`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

// The changelog that is there, and the name that stands twice.
func TestRepository(t *testing.T) {
	text, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := parseChangelog(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if len(e.changes) == 0 {
			t.Errorf("%s: no changes", e.version)
		}
	}
	list, err := os.ReadFile("../../packaging/nfpm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(list), "\nmaintainer: "+maintainer+"\n") {
		t.Errorf("packaging/nfpm.yaml names another maintainer than %q", maintainer)
	}
}
