package config

import (
	"fmt"
	"slices"

	"github.com/slicelb/slicelb/internal/prose"
)

// LostError is why a configuration takes the place of no other: files are not
// there that were, and that is no way to say that VIPs are to go.
type LostError struct {
	Text string
	Hint string // how to say it
}

func (e *LostError) Error() string { return e.Text }

// Idle reports whether c has nothing for the kernel to do.
func (c *Config) Idle() bool {
	return len(c.VIPs) == 0 && len(c.Policy.Rules) == 0 && c.Policy.Default != Deny &&
		!slices.ContainsFunc(c.Groups, func(g Group) bool { return g.Strict || g.Policy == Deny })
}

// Replaces reports whether c, as Load found it, may take the place of before,
// which runs; a nil before is one that nobody knows any more. It is a *LostError
// where the main file has gone, or where it is empty and nothing is configured any
// more. A main file that is masked, or says anything at all, is meant.
func (c *Config) Replaces(before *Config) error {
	if before != nil && before.Idle() || !c.Main.Missing && !c.Main.Blank {
		return nil
	}
	if before != nil && c.Main.Missing && slices.Contains(before.Files, c.Main.Path) {
		return &LostError{
			Text: c.Main.Path + " is missing, and was read for the configuration that runs",
			Hint: "put it back; to do without it, make it a link to /dev/null",
		}
	}
	if !c.Idle() {
		return nil
	}
	what := c.Main.Path + " is empty"
	if c.Main.Missing {
		what = c.Main.Path + " is missing"
	}
	would := "all that is configured would go"
	if before != nil && len(before.VIPs) > 0 {
		would = fmt.Sprintf("%s would go", prose.Plural(len(before.VIPs), "VIP"))
	}
	return &LostError{
		Text: what + ", and no other file configures anything: " + would,
		Hint: "put it back; to have no VIP, say so in it: a line is enough, if only a comment",
	}
}
