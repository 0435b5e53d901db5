package config

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// uncomment makes a reference's commented values active.
func uncomment(text string) string {
	return regexp.MustCompile(`(?m)^#([a-z\[].*)$`).ReplaceAllString(text, "$1")
}

func TestReference(t *testing.T) {
	data, err := os.ReadFile("../etc/slicelb.toml")
	if err != nil {
		t.Fatal(err)
	}
	defaults, err := Parse("slicelb.toml", nil)
	if err != nil {
		t.Fatal(err)
	}

	// As it is installed, it configures nothing.
	got, err := Parse("slicelb.toml", data)
	if err != nil {
		t.Fatal(errorText(err))
	}
	if diff := cmp.Diff(defaults, got, noPlaces); diff != "" {
		t.Errorf("not empty (-want +got):\n%s", diff)
	}

	// Uncommented, it is valid, and what is said to be a default is one.
	text := uncomment(string(data))
	all, err := Parse("slicelb.toml", []byte(text))
	if err != nil {
		t.Fatal(errorText(err))
	}
	if diff := cmp.Diff(defaults.Daemon, all.Daemon, noPlaces); diff != "" {
		t.Errorf("[daemon] differs from the defaults (-want +got):\n%s", diff)
	}
	if h := all.VIPs[0].Health; h == nil || h.Interval != DefaultHealthInterval || h.Timeout != DefaultHealthTimeout ||
		h.Fall != DefaultFall || h.Rise != DefaultRise || h.Initial != InitialDown || h.PanicThreshold != DefaultPanicThreshold || h.Insecure {
		t.Errorf("[vip.db.health] differs from the defaults: %+v", h)
	}
	if len(all.Groups) != 2 || len(all.VIPs) != 1 || len(all.VIPs[0].For) != 1 {
		t.Errorf("%d groups, %d VIPs", len(all.Groups), len(all.VIPs))
	}

	// Every key that is supported is there, in the table that has it.
	m, _, faults := decode(&fileText{name: "slicelb.toml", data: []byte(text)})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	vip := m["vip"].(raw)["db"].(raw)
	backend := raw{}
	for _, b := range vip["backend"].([]raw) {
		maps.Copy(backend, b)
	}
	for _, tt := range []struct {
		title string
		table raw
		keys  []string
	}{
		{"top", m, topKeys},
		{"daemon", m["daemon"].(raw), daemonKeys},
		{"group", m["group"].(raw)["jobs"].(raw), groupKeys},
		{"vip", vip, vipKeys},
		{"health", vip["health"].(raw), healthKeys},
		{"backend", backend, backendKeys},
		{"for", vip["for"].(raw)["jobs"].(raw), viewKeys},
		{"policy", m["policy"].(raw), policyKeys},
		{"rule", m["policy"].(raw)["rule"].([]raw)[0], ruleKeys},
	} {
		for _, k := range tt.keys {
			if _, ok := tt.table[k]; !ok {
				t.Errorf("%s in %s is not in the reference", k, tt.title)
			}
		}
	}
}

// TestPage parses the examples of the user's page.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```toml\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	if len(blocks) == 0 {
		t.Fatal("no examples")
	}
	for _, b := range blocks {
		if _, err := Parse("configuration.md", []byte(b[1])); err != nil {
			t.Error(errorText(err))
		}
	}

	// It names every key, the refused ones too, and the bounds that are.
	for _, k := range slices.Concat(topKeys, daemonKeys, groupKeys, vipKeys, vipLater, backendKeys, viewKeys, healthKeys, policyKeys, ruleKeys) {
		if !regexp.MustCompile("[`.\\[]" + k + "[`.\\]]").Match(page) {
			t.Errorf("%s is not on the page", k)
		}
	}
	for _, shown := range []string{"4096 to 268435456", "4096 to 16777216", "0 to 65535", "1024 files", "16384 groups", "32768 slices", "16384 VIPs", "65536 frontends", "131072 backends", "4096 backends", "100ms to 1h", "1 to 100", "200 to 599", "16384 rules", "262144 targets"} {
		if !strings.Contains(strings.Join(strings.Fields(string(page)), " "), shown) {
			t.Errorf("%q is not on the page", shown)
		}
	}
}
