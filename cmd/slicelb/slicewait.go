package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/prose"
)

const ownUnit = "slicelb.service"

// mostAsked bounds what doctor asks the service manager.
const mostAsked = 500

// selfOrdered are slices whose contents another unit starts, which the unit
// file of slicelb names in Before=; and those that slicelb itself is in, which
// cannot wait for it.
var selfOrdered = []string{"nomad.slice", "system.slice", "-.slice"}

// bootOrder is slicesThatDoNotWait for the configuration that g names; nothing
// where systemd is not the service manager.
func bootOrder(ctx context.Context, g *globals) []finding {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil
	}
	cfg, _, err := g.load(ctx)
	if err != nil {
		return []finding{{"order at boot", verdictNote, "not known: the configuration cannot be read", "slicelb check says why"}}
	}
	return []finding{slicesThatDoNotWait(ctx, cfg, showOrder)}
}

// slicesThatDoNotWait says which of the slices that the configuration names
// may start something at boot before the VIPs are in the kernel. A slice that systemd
// has not loaded holds nothing, and is not loaded for an answer: show leaves it out.
func slicesThatDoNotWait(ctx context.Context, cfg *config.Config, show func(context.Context, []string) (string, error)) finding {
	f := finding{Check: "order at boot", Verdict: verdictOK}
	names, patterns := bootSlices(cfg)
	if len(names)+len(patterns) == 0 {
		f.Text = "no slice of the configuration has to be told to wait"
		return f
	}
	rest := names[min(len(names), mostAsked):]
	names = names[:len(names)-len(rest)]
	var asked []string
	for _, name := range slices.Concat(names, patterns[:min(len(patterns), mostAsked)]) {
		asked = append(asked, chain(name)...)
	}
	slices.Sort(asked)
	out, err := show(ctx, slices.Compact(asked))
	if err != nil {
		f.Verdict, f.Text = verdictNote, "not known: "+err.Error()
		return f
	}
	waits := ordered(out)
	var first, missing, absent []string
	for _, name := range names {
		_, loaded := waits[name]
		switch {
		case slices.ContainsFunc(chain(name), func(s string) bool { return waits[s] }):
			first = append(first, name)
		case loaded:
			missing = append(missing, name)
		default:
			absent = append(absent, name)
		}
	}
	if len(rest) > 0 {
		f.Verdict, f.Hint = verdictNote, fmt.Sprintf("%d more slices were not looked at", len(rest))
	}
	patterns = slices.DeleteFunc(patterns, func(p string) bool { // what a slice around it waits for
		return slices.ContainsFunc(chain(p), func(s string) bool { return waits[s] })
	})
	unknown := ""
	if len(absent) > 0 {
		unknown = "; not loaded now, and so not known: " + strings.Join(absent, ", ")
	}
	if len(patterns) > 0 {
		unknown += "; not looked for, and so not known: " + strings.Join(patterns, ", ")
	}
	switch {
	case len(missing) > 0:
	case len(first) > 0:
		f.Text = "what starts in " + strings.Join(first, ", ") + " waits for " + ownUnit + unknown
		return f
	default:
		f.Text = cmp.Or(strings.TrimPrefix(unknown, "; "), "what starts in the slices of the configuration waits for "+ownUnit)
		return f
	}
	f.Verdict = verdictNote
	f.Text = "not after " + ownUnit + ": " + strings.Join(missing, ", ") + unknown
	f.Hint = "what starts there at boot may come before the VIPs: see web.slice.d in /usr/share/doc/slicelb/examples"
	return f
}

// escape is how systemd writes a byte in a unit's name.
var escape = regexp.MustCompile(`\\x[0-9a-fA-F]{2}`)

// isPattern: an escape of systemd's stands for itself.
func isPattern(text string) bool {
	return strings.ContainsAny(escape.ReplaceAllString(text, ""), `*?[\`)
}

// bootSlices are the slices among the anchors, or around them, each once: units, and
// patterns of units. What no slice is around is started by another than systemd.
func bootSlices(cfg *config.Config) (names, patterns []string) {
	for _, g := range cfg.Groups {
		for _, a := range g.Anchors {
			name := sliceOf(a.Text)
			switch {
			case name == "" || slices.Contains(selfOrdered, name):
			case isPattern(name):
				patterns = append(patterns, name)
			default:
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	slices.Sort(patterns)
	return slices.Compact(names), slices.Compact(patterns)
}

// sliceOf is the deepest slice of an anchor that systemd starts: below a service or a
// scope another manager does. "" = none.
func sliceOf(text string) (name string) {
	for part := range strings.SplitSeq(strings.TrimPrefix(text, "/"), "/") {
		if !strings.HasSuffix(part, ".slice") {
			return name
		}
		if name = part; isPattern(part) {
			return name
		}
	}
	return name
}

// chain is a slice and those that it lies in, but the root: what they wait for
// it waits for too. A pattern is no slice.
func chain(name string) (all []string) {
	stem := strings.TrimSuffix(name, ".slice")
	for {
		if !isPattern(stem) {
			all = append(all, stem+".slice")
		}
		i := strings.LastIndexByte(stem, '-')
		if i <= 0 {
			return all
		}
		stem = stem[:i]
	}
}

// ordered reads what systemctl show prints: which units there are, and whether they are
// after ours.
func ordered(out string) map[string]bool {
	waits := make(map[string]bool)
	for _, unit := range strings.Split(out, "\n\n") {
		var id string
		var after bool
		for line := range strings.Lines(unit) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch key {
			case "Id":
				id = value
			case "After":
				after = slices.Contains(strings.Fields(value), ownUnit)
			}
		}
		if id != "" {
			waits[id] = after
		}
	}
	return waits
}

// showOrder asks the service manager about those units that it has loaded: a list by
// patterns loads none, and a question about properties of one does.
func showOrder(ctx context.Context, units []string) (string, error) {
	if len(units) == 0 {
		return "", nil // no pattern would be all of them
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	list, err := systemctl(ctx, append([]string{"list-units", "--all", "--plain", "--no-legend", "--no-pager", "--full", "--"}, units...)...)
	if err != nil {
		return "", err
	}
	var loaded []string
	for line := range strings.Lines(list) {
		if f := strings.Fields(line); len(f) > 0 && slices.Contains(units, f[0]) {
			loaded = append(loaded, f[0])
		}
	}
	if len(loaded) == 0 {
		return "", nil
	}
	return systemctl(ctx, append([]string{"show", "--no-pager", "--property=Id,After", "--"}, loaded...)...)
}

func systemctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	var out, text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &text
	if err := cmd.Run(); err != nil {
		if line, _, _ := strings.Cut(text.String(), "\n"); line != "" {
			return "", fmt.Errorf("systemctl: %s", prose.OneLine(line))
		}
		return "", fmt.Errorf("systemctl: %w", err)
	}
	return out.String(), nil
}
