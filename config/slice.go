package config

import (
	"errors"
	"path"
	"strconv"
	"strings"
)

// Bounds of cgroup names.
const (
	maxComponent = 255
	maxPath      = 4095
	maxLevel     = 31 // the deepest anchor that callers below can be traced to
)

// anchorPattern turns an entry of slices into an absolute pattern below the
// cgroup root.
func anchorPattern(text string) (string, *refusal) {
	refuse := func(message, hint string) (string, *refusal) {
		return "", &refusal{"slice " + quote(text) + ": " + message, hint}
	}
	pattern := text
	switch {
	case text == "":
		return refuse("empty", "")
	case text[0] == '/':
		if clean := path.Clean(text); clean != text {
			return refuse("not a clean path", "write "+quote(clean))
		}
	case strings.Contains(text, "/"):
		return refuse("a cgroup path begins with /", "write "+quote("/"+text))
	case !strings.HasSuffix(text, ".slice"):
		hint := "did you mean " + strconv.Quote(text+".slice") + "?"
		if strings.HasSuffix(text, ".scope") || strings.HasSuffix(text, ".service") {
			hint = "its path, like " + strconv.Quote("/system.slice/"+text) + ", can be written"
		}
		return refuse("a name ends in .slice", hint)
	default:
		var err error
		if pattern, err = fromUnit(text); err != nil {
			return refuse(err.Error(), "")
		}
	}
	if len(pattern) > maxPath {
		return refuse("longer than a path can be", "")
	}
	if pattern == "/" {
		return pattern, nil
	}
	parts := strings.Split(pattern[1:], "/")
	if len(parts) > maxLevel {
		return refuse("deeper than level "+strconv.Itoa(maxLevel), "")
	}
	for _, p := range parts {
		if message := badComponent(p); message != "" {
			hint := ""
			if text[0] != '/' && strings.Contains(text, "[") {
				hint = "a class with - in it needs the absolute path"
			}
			return refuse(message, hint)
		}
	}
	return pattern, nil
}

// checkSplit checks a pattern of basenames.
func checkSplit(s string) *refusal {
	refuse := func(message, hint string) *refusal {
		return &refusal{"split " + quote(s) + ": " + message, hint}
	}
	if s == "" {
		return refuse("empty", `"*.scope", or leave it out`)
	}
	if strings.Contains(s, "/") {
		return refuse("matches names, not paths", "write "+quote(path.Base(s)))
	}
	if message := badComponent(s); message != "" {
		return refuse(message, "")
	}
	return nil
}

// badComponent says why no directory can match the pattern p.
func badComponent(p string) string {
	switch {
	case p == "." || p == "..":
		return quote(p) + " names no cgroup"
	case len(p) > maxComponent:
		return "a component longer than " + strconv.Itoa(maxComponent) + " bytes"
	case strings.ContainsAny(p, "\n\x00"):
		return "a cgroup's name holds no newline and no NUL"
	}
	if _, err := path.Match(p, ""); err != nil {
		return "the glob " + quote(p) + " is not complete"
	}
	return ""
}

var errSliceName = errors.New("not the name of a slice")

// fromUnit returns systemd's path for a slice unit.
func fromUnit(slice string) (string, error) {
	name := strings.TrimSuffix(slice, ".slice")
	if name == "-" {
		return "/", nil
	}
	if name == "" || strings.Contains(name, "@") {
		return "", errSliceName
	}
	out := ""
	parts := strings.Split(name, "-")
	for i, p := range parts {
		if p == "" {
			return "", errSliceName
		}
		out += "/" + escape(strings.Join(parts[:i+1], "-")+".slice")
	}
	return out, nil
}

// escape is what systemd does to names that the kernel's own files could clash with.
func escape(name string) string {
	first, _, _ := strings.Cut(name, ".")
	switch first {
	case "cgroup", "cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc":
		return "_" + name
	}
	if strings.HasPrefix(name, "_") || strings.HasPrefix(name, ".") {
		return "_" + name
	}
	return name
}
