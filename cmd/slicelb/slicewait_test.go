package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/config"
)

func TestSlicesThatDoNotWait(t *testing.T) {
	parse := func(slices string) *config.Config {
		t.Helper()
		cfg, err := config.Parse("test", []byte("[group.g]\nslices = ["+slices+"]\n"))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	// a.slice and web.slice wait; what is in a.slice waits with it.
	show := func(_ context.Context, units []string) (string, error) {
		var out []string
		for _, u := range units {
			if strings.HasPrefix(u, "absent") {
				continue
			}
			after := "-.slice"
			if u == "web.slice" || u == "a.slice" {
				after += " slicelb.service system.slice"
			}
			out = append(out, "Id="+u+"\nAfter="+after)
		}
		return strings.Join(out, "\n\n") + "\n", nil
	}
	for _, tt := range []struct{ slices, verdict, text string }{
		{`"web.slice"`, verdictOK, "what starts in web.slice waits for slicelb.service"},
		{`"web.slice", "a-b-c.slice"`, verdictOK, "what starts in a-b-c.slice, web.slice waits for slicelb.service"},
		{`"web.slice", "jobs.slice", "b-a.slice"`, verdictNote, "not after slicelb.service: b-a.slice, jobs.slice"},
		{`"web.slice", "absent-a.slice"`, verdictOK, "what starts in web.slice waits for slicelb.service; not loaded now, and so not known: absent-a.slice"},
		{`"absent.slice"`, verdictOK, "not loaded now, and so not known: absent.slice"},
		{`"a-absent.slice", "absent.slice", "b.slice"`, verdictNote, "not after slicelb.service: b.slice; not loaded now, and so not known: absent.slice"},
		{`"nomad.slice", "system.slice", "/system.slice/docker-*.scope", "/docker"`, verdictOK, "no slice of the configuration has to be told to wait"},
		{`'my\x2dapp.slice', "/web.slice", "/b.slice/b-c.slice/x.scope", "b-*.slice"`, verdictNote, `not after slicelb.service: b-c.slice, my\x2dapp.slice; not looked for, and so not known: b-*.slice`},
		{`"/a.slice/a-*.slice"`, verdictOK, "what starts in the slices of the configuration waits for slicelb.service"},
		{`"*-x.slice"`, verdictOK, "not looked for, and so not known: *-x.slice"},
		{`"/a.slice/a-b.slice/x.service/c.slice"`, verdictOK, "what starts in a-b.slice waits for slicelb.service"},
	} {
		got := slicesThatDoNotWait(t.Context(), parse(tt.slices), show)
		if got.Verdict != tt.verdict || got.Text != tt.text || (got.Hint != "") != (tt.verdict == verdictNote) {
			t.Errorf("%s: %+v", tt.slices, got)
		}
	}

	var many []string
	for i := range mostAsked + 3 {
		many = append(many, fmt.Sprintf(`"a-%d.slice"`, i))
	}
	if got := slicesThatDoNotWait(t.Context(), parse(strings.Join(many, ", ")), show); got.Hint != "3 more slices were not looked at" {
		t.Errorf("many: %+v", got)
	}
	silent := func(context.Context, []string) (string, error) { return "", errors.New("systemctl: no bus") }
	if got := slicesThatDoNotWait(t.Context(), parse(`"web.slice"`), silent); got.Verdict != verdictNote || got.Text != "not known: systemctl: no bus" {
		t.Errorf("silent: %+v", got)
	}
}

func TestChain(t *testing.T) {
	for name, want := range map[string][]string{
		"web.slice":         {"web.slice"},
		"a-b-c.slice":       {"a-b-c.slice", "a-b.slice", "a.slice"},
		"a-b-*.slice":       {"a-b.slice", "a.slice"},
		`my\x2dapp-x.slice`: {`my\x2dapp-x.slice`, `my\x2dapp.slice`},
	} {
		if diff := cmp.Diff(want, chain(name)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
