package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// released is what git describe says of a release: its tag, and nothing after.
var released = regexp.MustCompile(`^v(\d+\.\d+\.\d+(?:-[a-z]+\.?\d+)?)$`)

// notes returns what the changelog says of the release; "" if none is made. A
// tag, and a section of that name on top of the changelog, make a release.
func (p *pack) notes() (string, error) {
	if !p.release {
		return "", nil
	}
	m := released.FindStringSubmatch(p.describe)
	if m == nil {
		return "", fmt.Errorf("%s is no release: want a tag such as v1.2.0, and nothing that is not committed", p.describe)
	}
	entries, err := p.changelog()
	if err != nil {
		return "", err
	}
	if top := entries[0].version; top != m[1] {
		return "", fmt.Errorf("CHANGELOG.md begins with %s: want \"## %s, %s\"", top, m[1], p.time.Format("2006-01-02"))
	}
	return entries[0].text, nil
}

// publish writes the notes and the sums of the packages beside them.
func (p *pack) publish(notes string) error {
	files := map[string][]byte{"NOTES.md": []byte(notes)}
	var sums bytes.Buffer
	slices.Sort(p.made)
	for _, path := range p.made {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(data), filepath.Base(path))
	}
	files["SHA256SUMS"] = sums.Bytes()
	for _, name := range []string{"NOTES.md", "SHA256SUMS"} {
		path := filepath.Join(p.out, name)
		if err := os.WriteFile(path, files[name], 0o644); err != nil {
			return err
		}
		fmt.Println(path)
	}
	return nil
}

// section is a section's text without its title, as it is published.
func section(lines []string) string {
	return strings.Trim(strings.Join(lines, "\n"), "\n") + "\n"
}
