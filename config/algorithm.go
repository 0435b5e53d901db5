package config

import (
	"time"
)

// Algorithm says how a backend is chosen, by weight in each case.
type Algorithm string

const (
	Random           Algorithm = "random"
	Maglev           Algorithm = "maglev"            // by the caller's group, or its affinity key
	LeastConnections Algorithm = "least-connections" // the better of two by open sockets
)

// Bounds of affinity.
const (
	minAffinity = time.Second
	maxAffinity = 24 * time.Hour
)

// readChoice reads what says how a backend is chosen, and kept.
func (b *builder) readChoice(t *table, v *vipDraft) {
	v.algorithmAt = t.said("algorithm")
	v.Algorithm = Algorithm(t.choice("algorithm", string(Random), string(Random), string(Maglev), string(LeastConnections)))
	v.Affinity = t.duration("affinity", 0, minAffinity, maxAffinity)
	if _, at := t.places("affinity"); v.Affinity%time.Second != 0 {
		b.errorf(at, "", "affinity %s in %s: whole seconds only", durationText(v.Affinity), t.title)
	}
}

// checkChoice warns of choices that do not do what they seem to.
func (b *builder) checkChoice(v *vipDraft) {
	title := "vip." + printable(v.Name)
	switch v.Algorithm {
	case LeastConnections:
		if v.Health == nil {
			b.warnf(v.algorithmAt, "add [vip."+printable(v.Name)+".health]",
				"%s has no health checks: a backend that refuses quickly has few open connections, and least-connections prefers it", title)
		}
	case Maglev:
		callers, known := b.callers(v)
		if known && v.Affinity == 0 && callers < len(v.Backends) {
			b.warnf(v.algorithmAt, `affinity = "10m" tells network namespaces apart, too`,
				"%s has more backends (%d) than groups that see it (%d): with maglev a group goes to one backend", title, len(v.Backends), callers)
		}
	}
}

// callers counts the groups that get a VIP's own backends; false: a group is
// split, and how many it is, is not known.
func (b *builder) callers(v *vipDraft) (int, bool) {
	n, known := 0, true
	away := map[string]bool{}
	for _, w := range v.except {
		away[w.text] = true
	}
	for _, view := range v.views {
		away[view.Group] = true
	}
	count := func(name string) {
		if g := b.groupByID[name]; away[name] || g != nil && !g.Translate {
			return
		} else if g != nil && g.Split != "" {
			known = false
		}
		n++
	}
	if v.Clients != nil {
		for _, name := range v.Clients {
			count(name)
		}
		return n, known
	}
	count(hostGroup)
	for _, g := range b.groups {
		count(g.Name)
	}
	return n, known
}

// choice renders.
func (r *renderer) choice(v *VIP) {
	algorithm := v.Algorithm
	if algorithm == "" {
		algorithm = Random
	}
	r.line("algorithm = " + tomlString(string(algorithm)))
	if v.Affinity > 0 {
		r.line("affinity = " + tomlString(durationText(v.Affinity)))
	}
}
