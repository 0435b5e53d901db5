package config

import (
	"cmp"
	"path"
	"strconv"
	"strings"

	"github.com/slicelb/slicelb/unitwatch/anchor"
)

const maxPath = 4095

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
		if pattern, err = anchor.FromUnit(text); err != nil {
			return "", &refusal{err.Error(), ""}
		}
	}
	if len(pattern) > maxPath {
		return refuse("longer than a path can be", "")
	}
	if pattern == "/" {
		return pattern, nil
	}
	parts := strings.Split(pattern[1:], "/")
	if len(parts) > anchor.MaxLevel {
		return refuse("deeper than level "+strconv.Itoa(anchor.MaxLevel), "")
	}
	for _, p := range parts {
		if message := badComponent(p); message != "" {
			return refuse(message, "")
		}
	}
	return pattern, nil
}

// belowMount is a pattern without the place where cgroup2 is mounted on most hosts;
// false: it does not begin with it.
func belowMount(pattern string) (string, bool) {
	for _, mount := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if below, ok := strings.CutPrefix(pattern, mount); ok && (below == "" || below[0] == '/') {
			return cmp.Or(below, "/"), true
		}
	}
	return "", false
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
	case len(p) > anchor.MaxName:
		return "a component longer than " + strconv.Itoa(anchor.MaxName) + " bytes"
	case strings.ContainsAny(p, "\n\x00"):
		return "a cgroup's name holds no newline and no NUL"
	}
	if _, err := path.Match(p, ""); err != nil {
		return "the glob " + quote(p) + " is not complete"
	}
	return ""
}
