package main

import (
	"os/exec"
	"testing"
	"time"
)

func TestPackageVersion(t *testing.T) {
	at := time.Date(2026, 11, 22, 20, 19, 7, 0, time.FixedZone("", 3600))
	tests := []struct{ describe, want string }{
		{"0123abc", "0.0.0~git20261122191907.0123abc"},
		{"0123abc-dirty", "0.0.0~git20261122191907.0123abc.dirty"},
		{"v1.2.0-rc1", "1.2.0~rc1"},
		{"v1.2.0-rc.2", "1.2.0~rc2"},
		{"v1.2.0", "1.2.0"},
		{"1.2.0", "1.2.0"},
		{"v1.2.0-dirty", "1.2.0+dirty"},
		{"v1.2.0-3-gabc1234", "1.2.0+3.gabc1234"},
		{"v1.2.0-3-gabc1234-dirty", "1.2.0+3.gabc1234.dirty"},
		{"v1.2.0-rc1-3-gabc1234", "1.2.0~rc1+3.gabc1234"},
		{"devel", ""},
		{"v1.2", ""},
		{"", ""},
		{"v1.2.0 ; true", ""},
	}
	for _, tt := range tests {
		got, err := packageVersion(tt.describe, at)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q: %q, %v; want %q", tt.describe, got, err, tt.want)
		}
	}
}

// dpkg orders versions as the commits are ordered.
func TestPackageVersionOrder(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip("no dpkg here")
	}
	at := time.Date(2026, 11, 22, 20, 19, 7, 0, time.UTC)
	older := ""
	for i, describe := range []string{"ffffff1", "0123abc", "v0.1.0-rc1", "v0.1.0-rc1-9-gabc1234", "v0.1.0-rc2", "v0.1.0", "v0.1.0-2-gfff1234", "v0.1.0-10-gabc1234", "v0.1.1"} {
		version, err := packageVersion(describe, at.Add(time.Duration(i)*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if older != "" && exec.Command("dpkg", "--compare-versions", older, "lt", version).Run() != nil {
			t.Errorf("%s is not before %s", older, version)
		}
		older = version
	}
}
