package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

var (
	describedTag = regexp.MustCompile(`^v?(\d+\.\d+\.\d+)(?:-([a-z]+\.?\d+))?(?:-(\d+)-g([0-9a-f]+))?(-dirty)?$`)
	describedID  = regexp.MustCompile(`^([0-9a-f]{7,40})(-dirty)?$`)
)

// packageVersion makes a version that dpkg and rpm order as the commits are
// ordered: 1.2.0~rc1 < 1.2.0 < 1.2.0+3.gabc1234 < 1.2.1. Before the first tag
// it is 0.0.0~git and the time of the commit.
func packageVersion(describe string, commit time.Time) (string, error) {
	dirty := ""
	if strings.HasSuffix(describe, "-dirty") {
		dirty = "dirty"
	}
	if m := describedID.FindStringSubmatch(describe); m != nil {
		return join(".", "0.0.0~git"+commit.UTC().Format("20060102150405"), m[1], dirty), nil
	}
	m := describedTag.FindStringSubmatch(describe)
	if m == nil {
		return "", fmt.Errorf("version %q: want a tag such as v1.2.0 or v1.2.0-rc1, with what git describe adds, or a commit", describe)
	}
	version := m[1]
	if m[2] != "" {
		version += "~" + strings.ReplaceAll(m[2], ".", "")
	}
	after := ""
	if m[3] != "" {
		after = m[3] + ".g" + m[4]
	}
	if after = join(".", after, dirty); after != "" {
		version += "+" + after
	}
	return version, nil
}

// join is strings.Join without the empty parts.
func join(sep string, parts ...string) string {
	var b strings.Builder
	for _, part := range parts {
		if part == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(sep)
		}
		b.WriteString(part)
	}
	return b.String()
}
