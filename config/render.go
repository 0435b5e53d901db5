package config

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Render writes c as one TOML text in a canonical form, every value said.
// Parse of the text is c again, but for places and Files. With origins, a
// comment after each object and value says where it came from.
func (c *Config) Render(w io.Writer, origins bool) error {
	r := &renderer{w: bufio.NewWriter(w), origins: origins}
	if origins {
		for _, f := range c.Files {
			r.line("# " + printable(f))
		}
	}
	r.header("[daemon]", c.Daemon.Origin)
	r.line("log_level = " + tomlString(c.Daemon.LogLevel))
	http := ""
	if c.Daemon.HTTP.IsValid() {
		http = c.Daemon.HTTP.String()
	}
	r.line("http = " + tomlString(http))
	r.line(fmt.Sprintf("slots = %d", c.Daemon.Slots))
	r.line(fmt.Sprintf("udp_flows = %d", c.Daemon.UDPFlows))
	for i := range c.Groups {
		r.group(&c.Groups[i])
	}
	for i := range c.VIPs {
		r.vip(&c.VIPs[i])
	}
	r.policy(&c.Policy)
	return r.w.Flush() // bufio keeps the first error
}

// Text is what Render writes.
func (c *Config) Text(origins bool) (string, error) {
	var b strings.Builder
	if err := c.Render(&b, origins); err != nil {
		return "", err
	}
	return b.String(), nil
}

type renderer struct {
	w       *bufio.Writer
	origins bool
	begun   bool
}

func (r *renderer) line(s string) {
	r.begun = true
	r.w.WriteString(s)
	r.w.WriteByte('\n')
}

// from is the comment that says where a value came from.
func (r *renderer) from(at Position) string {
	if !r.origins || at == (Position{}) {
		return ""
	}
	return " # " + at.String()
}

func (r *renderer) header(title string, at Position) {
	if r.begun {
		r.line("")
	}
	r.line(title + r.from(at))
}

func (r *renderer) group(g *Group) {
	r.header("[group."+g.Name+"]", g.Origin)
	r.line("slices = [")
	for _, a := range g.Anchors {
		r.line("  " + tomlString(a.Text) + "," + r.from(a.Origin))
	}
	r.line("]")
	if g.Split != "" {
		r.line("split = " + tomlString(g.Split))
	}
	if g.SplitMetrics > 0 {
		r.line(fmt.Sprintf("split_metrics = %d", g.SplitMetrics))
	}
	r.line(fmt.Sprintf("translate = %t", g.Translate))
	if g.Policy != "" {
		r.line("policy = " + tomlString(string(g.Policy)))
	}
	if g.Strict {
		r.line("strict = true")
	}
}

func (r *renderer) vip(v *VIP) {
	r.header("[vip."+v.Name+"]", v.Origin)
	r.line("frontends = [")
	for _, f := range v.Frontends {
		r.line("  " + tomlString(f.String()) + "," + r.from(f.Origin))
	}
	r.line("]")
	r.choice(v)
	r.line(fmt.Sprintf("reject_unknown_ports = %t", v.RejectUnknownPorts))
	if v.Clients != nil {
		r.line("clients = " + tomlStrings(v.Clients))
	}
	if v.Except != nil {
		r.line("except = " + tomlStrings(v.Except))
	}
	r.line("hidden = " + tomlString(string(v.Hidden)))
	r.line("when_down = " + tomlString(string(v.WhenDown)))
	r.line("drain_timeout = " + tomlString(durationText(v.DrainTimeout)))
	r.line("terminate = " + tomlString(string(v.Terminate)))
	r.backends(v.Backends, v.Units)
	if v.Health != nil {
		r.health(v.Name, v.Health)
	}
	for i := range v.For {
		view := &v.For[i]
		r.header("[vip."+v.Name+".for."+view.Group+"]", view.Origin)
		r.line("when_down = " + tomlString(string(view.WhenDown)))
		r.backends(view.Backends, view.Units)
	}
}

func (r *renderer) backends(list []Backend, units []UnitBackend) {
	if len(list)+len(units) == 0 {
		return
	}
	r.line("backend = [")
	for _, b := range list {
		r.line(fmt.Sprintf("  { address = %s, weight = %d },%s", tomlString(b.Addr.String()), b.Weight, r.from(b.Origin)))
	}
	for _, u := range units {
		r.line(fmt.Sprintf("  { unit = %s, address = %s, weight = %d },%s", tomlString(u.Unit), tomlString(u.Address), u.Weight, r.from(u.Origin)))
	}
	r.line("]")
}

func tomlStrings(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = tomlString(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// tomlString is a basic string; s is valid UTF-8.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case !unicode.IsPrint(r): // a terminal may obey it
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
