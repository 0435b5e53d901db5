package main

import (
	"os"
	"path/filepath"
	"strings"
)

// inPackage puts the targets of links where they are in a package.
var inPackage = strings.NewReplacer(
	"](../packaging/examples", "](../examples",
	"](packaging/examples", "](examples",
	"](etc/slicelb.toml", "](/etc/slicelb/slicelb.toml",
	"](../CONTRIBUTING.md", "](https://github.com/slicelb/slicelb/blob/main/CONTRIBUTING.md",
)

// docs stages the pages of docs as a folder, and the pages above it that they lead to.
func (p *pack) docs() error {
	if err := p.copyTree("docs", "docs"); err != nil {
		return err
	}
	tests, err := filepath.Glob(filepath.Join(p.stage, "docs/*_test.go"))
	if err != nil {
		return err
	}
	for _, path := range tests {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if err := os.Chtimes(filepath.Join(p.stage, "docs"), p.time, p.time); err != nil {
		return err
	}
	pages, err := filepath.Glob(filepath.Join(p.top, "docs/*.md"))
	if err != nil {
		return err
	}
	for _, path := range append(pages, filepath.Join(p.top, "README.md"), filepath.Join(p.top, "SECURITY.md")) {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.Join("docs", filepath.Base(path))
		if filepath.Dir(path) == p.top {
			name = filepath.Join("above", filepath.Base(path))
		}
		if err := p.write(name, []byte(inPackage.Replace(string(text)))); err != nil {
			return err
		}
	}
	return nil
}
