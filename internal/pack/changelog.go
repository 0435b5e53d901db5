package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// unreleased is the title of what no tag has yet.
const unreleased = "Unreleased"

// maintainer is who packages; packaging/nfpm.yaml says the same.
const maintainer = "slicelb maintainers <slicelb@users.noreply.github.com>"

// entry is one section of CHANGELOG.md: "## Unreleased" or "## 1.2.0, 2027-01-31".
type entry struct {
	version string // or unreleased
	date    time.Time
	changes []string // the list's items, each on one line
	text    string   // all of it, below the title
}

var title = regexp.MustCompile(`^## (?:(Unreleased)|(\d+\.\d+\.\d+(?:-[a-z0-9]+)?), (\d{4}-\d\d-\d\d))$`)

// parseChangelog reads CHANGELOG.md, newest first.
func parseChangelog(text string) ([]entry, error) {
	var entries []entry
	var last *entry
	var lines []string // of last
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "## "):
			m := title.FindStringSubmatch(line)
			if m == nil {
				return nil, fmt.Errorf("title %q: want \"## Unreleased\" or \"## 1.2.0, 2027-01-31\"", line)
			}
			e := entry{version: m[1] + m[2]}
			if m[3] != "" {
				date, err := time.Parse(time.DateOnly, m[3])
				if err != nil {
					return nil, fmt.Errorf("title %q: %w", line, err)
				}
				e.date = date
			}
			if last != nil {
				last.text = section(lines)
			}
			lines = nil
			entries = append(entries, e)
			last = &entries[len(entries)-1]
			continue
		case last == nil: // before the first section
		case strings.HasPrefix(line, "- "):
			last.changes = append(last.changes, line[2:])
		case strings.HasPrefix(line, "  ") && len(last.changes) > 0:
			last.changes[len(last.changes)-1] += " " + strings.TrimSpace(line)
		}
		lines = append(lines, line)
	}
	if last == nil {
		return nil, errors.New("no section")
	}
	last.text = section(lines)
	return entries, nil
}

// packed gives each entry the version and time that it has in a package. What is
// unreleased is that of the version that is packed.
func packed(entries []entry, version string, at time.Time) []entry {
	list := slices.Clone(entries)
	for i := range list {
		if list[i].version == unreleased {
			list[i].version, list[i].date = version, at
		}
		list[i].version += "-1" // the packages' own revision
	}
	return list
}

// debianChangelog writes packed entries as /usr/share/doc has them on Debian.
func debianChangelog(entries []entry) []byte {
	var b bytes.Buffer
	for i, e := range entries {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "slicelb (%s) unstable; urgency=medium\n\n", e.version)
		for _, c := range e.changes {
			fmt.Fprintf(&b, "  * %s\n", strings.ReplaceAll(wrap(c, 74), "\n", "\n    "))
		}
		fmt.Fprintf(&b, "\n -- %s  %s\n", maintainer, e.date.Format(time.RFC1123Z))
	}
	return b.Bytes()
}

// rpmChangelog writes packed entries as nfpm reads them. It puts a dash in front of
// a change, and passes its lines on as they are.
func rpmChangelog(entries []entry) ([]byte, error) {
	type change struct {
		Note string `json:"note"`
	}
	type section struct {
		Semver   string    `json:"semver"`
		Date     time.Time `json:"date"`
		Packager string    `json:"packager"`
		Changes  []change  `json:"changes"`
	}
	var list []section
	for _, e := range entries {
		s := section{Semver: e.version, Date: e.date, Packager: maintainer}
		for _, c := range e.changes {
			s.Changes = append(s.Changes, change{strings.ReplaceAll(wrap(c, 76), "\n", "\n  ")})
		}
		list = append(list, s)
	}
	return json.MarshalIndent(list, "", " ") // JSON is YAML
}

// wrap breaks a line into several of at most width bytes where its words allow.
func wrap(line string, width int) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(line) {
		switch {
		case i == 0:
		case column+1+len(word) > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
