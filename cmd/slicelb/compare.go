package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/slicelb/slicelb/config"
)

// Kinds of a change.
const (
	added   = "+"
	removed = "-"
	changed = "~"
)

// change is what happened to one object between two configurations.
type change struct {
	Kind   string  `json:"kind"`
	Object string  `json:"object"` // as in the file: vip.db, group.web, daemon
	Fields []field `json:"fields"`
}

// field is one value that is only in the one or the other.
type field struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// object is a named part of a configuration, as the lines that say all of it.
type object struct {
	name  string
	lines []string
}

// compare lists what a change from have to want does, in the order of want,
// then what is gone.
func compare(have, want *config.Config) []change {
	old := map[string][]string{}
	for _, o := range objects(have) {
		old[o.name] = o.lines
	}
	changes := []change{}
	for _, o := range objects(want) {
		before, ok := old[o.name]
		delete(old, o.name)
		if ok && slices.Equal(before, o.lines) {
			continue
		}
		c := change{Kind: changed, Object: o.name, Fields: []field{}}
		if !ok {
			c.Kind = added
		}
		for _, l := range before {
			if !slices.Contains(o.lines, l) {
				c.Fields = append(c.Fields, field{removed, l})
			}
		}
		for _, l := range o.lines {
			if !slices.Contains(before, l) {
				c.Fields = append(c.Fields, field{added, l})
			}
		}
		if len(c.Fields) == 0 { // the order alone
			c.Fields = append(c.Fields, field{changed, "order"})
		}
		changes = append(changes, c)
	}
	for _, o := range objects(have) {
		if _, gone := old[o.name]; gone {
			changes = append(changes, change{Kind: removed, Object: o.name, Fields: []field{}})
		}
	}
	if c, ok := reordered(have, want); ok {
		changes = append(changes, c)
	}
	return changes
}

// reordered says whether groups that stay have another precedence.
func reordered(have, want *config.Config) (change, bool) {
	common := func(from, other *config.Config) (out []string) {
		for _, g := range from.Groups {
			if slices.ContainsFunc(other.Groups, func(o config.Group) bool { return o.Name == g.Name }) {
				out = append(out, g.Name)
			}
		}
		return out
	}
	before, after := common(have, want), common(want, have)
	if slices.Equal(before, after) {
		return change{}, false
	}
	return change{Kind: changed, Object: "order of groups", Fields: []field{
		{removed, strings.Join(before, " ")}, {added, strings.Join(after, " ")},
	}}, true
}

// objects says all of a configuration: a test changes every field and looks for it
// here.
func objects(c *config.Config) []object {
	out := []object{{"daemon", daemonLines(&c.Daemon)}}
	for i := range c.Groups {
		out = append(out, object{"group." + c.Groups[i].Name, groupLines(&c.Groups[i])})
	}
	for i := range c.VIPs {
		out = append(out, object{"vip." + c.VIPs[i].Name, vipLines(&c.VIPs[i])})
	}
	return append(out, object{"policy", policyLines(&c.Policy)})
}

func groupLines(g *config.Group) []string {
	var out []string
	for _, a := range g.Anchors {
		out = append(out, fmt.Sprintf("slice %q", a.Text))
	}
	if g.Split != "" {
		out = append(out, fmt.Sprintf("split = %q", g.Split))
	}
	if g.SplitMetrics > 0 {
		out = append(out, fmt.Sprintf("split_metrics = %d", g.SplitMetrics))
	}
	out = append(out, fmt.Sprintf("translate = %t", g.Translate), fmt.Sprintf("strict = %t", g.Strict))
	if g.Policy != "" {
		out = append(out, fmt.Sprintf("policy = %q", g.Policy))
	}
	return out
}

func vipLines(v *config.VIP) []string {
	var out []string
	for _, f := range v.Frontends {
		out = append(out, "frontend "+f.String())
	}
	out = append(out,
		fmt.Sprintf("algorithm = %q", v.Algorithm),
		fmt.Sprintf("affinity = %q", v.Affinity.String()),
		fmt.Sprintf("reject_unknown_ports = %t", v.RejectUnknownPorts),
		"clients = "+clientList(v.Clients),
		"except = ["+strings.Join(v.Except, " ")+"]",
		fmt.Sprintf("hidden = %q", v.Hidden),
		fmt.Sprintf("when_down = %q", v.WhenDown),
		fmt.Sprintf("drain_timeout = %q", v.DrainTimeout.String()),
		fmt.Sprintf("terminate = %q", v.Terminate),
	)
	out = append(out, backendLines("", v.Backends)...)
	out = append(out, unitLines("", v.Units)...)
	out = append(out, healthLines(v.Health)...)
	for _, view := range v.For {
		prefix := "for " + view.Group + ": "
		out = append(out, fmt.Sprintf("%swhen_down = %q", prefix, view.WhenDown))
		out = append(out, backendLines(prefix, view.Backends)...)
		out = append(out, unitLines(prefix, view.Units)...)
	}
	return out
}

func daemonLines(d *config.Daemon) []string {
	http := ""
	if d.HTTP.IsValid() {
		http = d.HTTP.String()
	}
	return []string{
		fmt.Sprintf("log_level = %q", d.LogLevel), fmt.Sprintf("http = %q", http),
		fmt.Sprintf("slots = %d", d.Slots), fmt.Sprintf("udp_flows = %d", d.UDPFlows),
	}
}

func policyLines(p *config.Policy) []string {
	out := []string{fmt.Sprintf("default = %q", cmp.Or(p.Default, config.Allow))}
	for i := range p.Rules {
		var to []string
		for _, t := range p.Rules[i].To {
			to = append(to, t.String())
		}
		out = append(out, fmt.Sprintf("rule from [%s] to [%s]: %s", strings.Join(p.Rules[i].From, " "), strings.Join(to, " "), p.Rules[i].Action))
	}
	return out
}

// clientList: none said is everybody.
func clientList(names []string) string {
	if names == nil {
		return "any"
	}
	return "[" + strings.Join(names, " ") + "]"
}

// healthLines are the keys that say something.
func healthLines(h *config.Health) []string {
	if h == nil {
		return nil
	}
	out := []string{
		fmt.Sprintf("health type = %q", h.Type),
		fmt.Sprintf("health interval = %q", h.Interval.String()),
		fmt.Sprintf("health timeout = %q", h.Timeout.String()),
		fmt.Sprintf("health fall = %d", h.Fall),
		fmt.Sprintf("health rise = %d", h.Rise),
		fmt.Sprintf("health initial = %q", h.Initial),
		fmt.Sprintf("health passive = %t", h.Passive),
		fmt.Sprintf("health panic_threshold = %d", h.PanicThreshold),
		fmt.Sprintf("health slow_start = %q", h.SlowStart.String()),
	}
	if h.Type == config.HealthTCP {
		return out
	}
	out = append(out, fmt.Sprintf("health path = %q", h.Path), fmt.Sprintf("health host = %q", h.Host),
		fmt.Sprintf("health expect = %q", h.ExpectText()))
	for _, f := range h.Headers {
		out = append(out, fmt.Sprintf("health header %s: %s", f.Name, f.Value))
	}
	if h.Type == config.HealthHTTPS {
		out = append(out, fmt.Sprintf("health ca_file = %q", h.CAFile), fmt.Sprintf("health insecure = %t", h.Insecure))
	}
	return out
}

func backendLines(prefix string, backends []config.Backend) []string {
	out := make([]string, len(backends))
	for i, b := range backends {
		out[i] = fmt.Sprintf("%sbackend %s weight %d", prefix, b.Addr, b.Weight)
	}
	return out
}

func unitLines(prefix string, units []config.UnitBackend) []string {
	out := make([]string, len(units))
	for i, u := range units {
		out[i] = fmt.Sprintf("%sbackend unit %q at %q weight %d", prefix, u.Unit, u.Address, u.Weight)
	}
	return out
}
