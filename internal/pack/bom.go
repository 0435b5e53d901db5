package main

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// component is a part of a CycloneDX bill of materials.
type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl,omitempty"`
	Hashes  []hash `json:"hashes,omitempty"`
	// Properties carries what the format has no field for.
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// billOfMaterials says what a program was made of, as the program itself has
// it, in CycloneDX 1.6.
func billOfMaterials(binary, version string, at time.Time) ([]byte, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	main := component{
		Type: "application", Ref: info.Main.Path, Name: info.Main.Path, Version: version,
		PURL:   "pkg:golang/" + info.Main.Path + "@" + version,
		Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
	}
	parts := []component{{
		Type: "library", Ref: "std", Name: "std", Version: strings.TrimPrefix(info.GoVersion, "go"),
		PURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go"),
	}}
	refs := []string{"std"}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		purl := "pkg:golang/" + m.Path + "@" + m.Version
		parts = append(parts, component{
			Type: "library", Ref: purl, Name: m.Path, Version: m.Version, PURL: purl,
			Properties: []property{{"go:sum", m.Sum}},
		})
		refs = append(refs, purl)
	}
	text, err := json.MarshalIndent(map[string]any{
		"bomFormat":   "CycloneDX",
		"specVersion": "1.6",
		"version":     1,
		"metadata": map[string]any{
			"timestamp": at.Format(time.RFC3339),
			"component": main,
		},
		"components":   parts,
		"dependencies": []any{map[string]any{"ref": info.Main.Path, "dependsOn": refs}},
	}, "", "  ")
	return append(text, '\n'), err
}

// licenceTexts gathers the licences of what is linked into a program: all of
// them ask to be handed on with it.
func licenceTexts(ctx context.Context, top, binary string) ([]byte, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	text := []byte("What is linked into /usr/sbin/slicelb, and the licences of it.\n")
	for _, m := range info.Deps {
		dir, err := output(ctx, top, "go", "list", "-m", "-f", "{{.Dir}}", m.Path)
		if err != nil {
			return nil, err
		}
		files, err := licenceFiles(dir)
		if err != nil {
			return nil, err
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("%s: no licence in %s", m.Path, dir)
		}
		name := m.Path + " " + m.Version
		if m.Path == "golang.org/x/sys" {
			name += ", and the Go standard library, " + info.GoVersion
		}
		text = fmt.Appendf(text, "\n%s\n%s\n", strings.Repeat("=", 72), name)
		for _, file := range files {
			data, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				return nil, err
			}
			text = fmt.Appendf(text, "\n--- %s\n\n%s\n", file, strings.TrimRight(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n"))
		}
	}
	return text, nil
}

// licenceFiles are the files in dir that say under what terms it may be used.
func licenceFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		terms := slices.ContainsFunc([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE"}, func(start string) bool {
			return strings.HasPrefix(name, start)
		})
		if terms && e.Type().IsRegular() {
			files = append(files, e.Name())
		}
	}
	return files, nil
}
