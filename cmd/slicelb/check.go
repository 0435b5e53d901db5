package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/prose"
	"github.com/slicelb/slicelb/lb"
)

func newCheck(g *globals) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate the configuration",
		Long: `Validate the configuration and print everything that is wrong with it, with its
place. Needs no daemon and no root. With --config FILE, that file alone, or a
pipe; with a folder, a tree like /etc/slicelb: slicelb.toml and conf.d/*.toml.

Run by root it reads what is installed as the daemon's user would, so that a file
which only root can read is an error, as it is for a reload.

What the kernel's tables have no room for is an error, too, as far as the files say
it: backends that units are count only where they run. A rule of [policy] that
decides nothing, because rules before it do, is a warning.

Exit status 0 when it could be loaded, with warnings or without, 78 when not.`,
		Example: "  slicelb check\n  slicelb check -c ./slicelb.toml\n  slicelb check -o json | jq -r '.problems[].message'",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, warnings, err := g.load(cmd.Context())
			var bad *config.Error
			if err != nil && !errors.As(err, &bad) {
				var exit *exitError
				if out.format != "json" || errors.As(err, &exit) {
					return badConfig(nil, err)
				}
				bad = notFound(g.config, err)
			}
			if err == nil {
				bad = unfit(cfg)
			}
			if err == nil && bad == nil {
				warnings = append(warnings, covered(cfg)...)
			}
			if out.format == "json" {
				return checkJSON(g, cfg, warnings, bad)
			}
			return checkText(g, cfg, warnings, bad)
		},
	}
	out.flags(cmd)
	return cmd
}

// notFound says, in the form of a problem, why there is nothing to check at a path.
func notFound(name string, err error) *config.Error {
	p := config.Problem{Pos: config.Position{File: name}, Severity: config.SeverityError, Message: err.Error()}
	var perr *fs.PathError
	if errors.As(err, &perr) {
		p.Message = perr.Err.Error()
	}
	return &config.Error{Problems: []config.Problem{p}}
}

// unfit says, in the form of a problem, what the tables of a new data plane have no
// room for, or why no state of them can be made.
func unfit(cfg *config.Config) *config.Error {
	err := lb.Fits(cfg)
	if err == nil {
		return nil
	}
	p := config.Problem{Severity: config.SeverityError, Message: "cannot be used: " + err.Error()}
	if len(cfg.Files) > 0 {
		p.Pos.File = cfg.Files[len(cfg.Files)-1]
	}
	var limit *lb.LimitError
	if errors.As(err, &limit) {
		p.Message = "does not fit: " + limit.Error()
		if limit.Table == "slots" {
			p.Hint = "slots in [daemon] says how many there are"
		}
	}
	return &config.Error{Problems: []config.Problem{p}}
}

// toldRules is of how many rules that decide nothing check tells one by one.
const toldRules = 100

// covered warns of the rules of policy that decide nothing, because those before them
// do: whoever reads them believes that they do something. They follow the warnings
// of the files.
func covered(cfg *config.Config) config.Warnings {
	list, err := lb.CoveredRules(cfg)
	if err != nil {
		return nil // what cannot be compiled has been said
	}
	var out config.Warnings
	for i, c := range list {
		p := config.Problem{Pos: cfg.Policy.Rules[c.Rule].Origin, Severity: config.SeverityWarning}
		if i == toldRules {
			p.Message = fmt.Sprintf("and so for %s more, from this one on", prose.Plural(len(list)-i, "rule"))
			return append(out, p)
		}
		var by []string
		for _, rule := range c.By[:min(len(c.By), 3)] {
			by = append(by, fmt.Sprintf("rule %d (%s)", rule+1, cfg.Policy.Rules[rule].Origin))
		}
		if len(c.By) > len(by) {
			by = append(by, "others")
		}
		p.Message = fmt.Sprintf("rule %d decides nothing: what it names is decided before it, by %s", c.Rule+1, strings.Join(by, ", "))
		p.Hint = "put it further up, or leave it out"
		out = append(out, p)
	}
	return out
}

// checked is the answer of check -o json.
type checked struct {
	OK       bool             `json:"ok"`
	Files    []string         `json:"files"`
	VIPs     int              `json:"vips"`
	Groups   int              `json:"groups"`
	Problems []config.Problem `json:"problems"`
}

func checkJSON(g *globals, cfg *config.Config, warnings config.Warnings, bad *config.Error) error {
	v := checked{OK: bad == nil, Problems: append([]config.Problem{}, warnings...), Files: []string{}}
	if bad != nil {
		v.Problems = append(v.Problems, bad.Problems...)
		config.Sort(v.Problems)
	} else {
		v.Files, v.VIPs, v.Groups = cfg.Files, len(cfg.VIPs), len(cfg.Groups)
	}
	if err := printJSON(g.stdout, v); err != nil {
		return err
	}
	if bad != nil {
		return &exitError{code: exitBadConfig}
	}
	return nil
}

func checkText(g *globals, cfg *config.Config, warnings config.Warnings, bad *config.Error) error {
	if bad != nil {
		fmt.Fprint(g.stderr, bad.List(warnings))
		return &exitError{code: exitBadConfig, err: errors.New(prose.Plural(len(bad.Problems), "error"))}
	}
	if _, err := warnings.WriteTo(g.stderr); err != nil {
		return err
	}
	summary := fmt.Sprintf("%s, %s in %s", prose.Plural(len(cfg.VIPs), "VIP"), prose.Plural(len(cfg.Groups), "group"), prose.Plural(len(cfg.Files), "file"))
	if len(warnings) > 0 {
		summary += ", " + prose.Plural(len(warnings), "warning")
	}
	_, err := fmt.Fprintf(g.stderr, "slicelb: ok: %s\n", summary)
	return err
}
