package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// check refuses what is wrong across objects and files.
func (b *builder) check() {
	b.checkSlices()
	b.checkSplitMetrics()
	b.checkFrontends()
	b.checkUnknownPorts()
	for _, v := range b.vips {
		b.checkWho(v)
		b.checkHealth(v)
		b.checkChoice(v)
		b.checkBackends(v, "vip."+v.Name, &v.backends)
		for _, view := range v.views {
			b.checkBackends(v, "vip."+v.Name+".for."+view.Group, &view.backends)
		}
	}
	b.checkPolicy()
	b.checkCounts()
	b.checkTree()
}

// checkTree: the groups' patterns must make a tree together. What is wrong with
// one alone has been said by now.
func (b *builder) checkTree() {
	if len(b.problems) > 0 {
		return
	}
	groups := make([]anchor.Group, len(b.groups))
	for i, g := range b.groups {
		groups[i] = g.Group.anchors()
	}
	tree, err := anchor.Compile(groups)
	if err == nil {
		b.warnCrowds(tree.Crowds())
		return
	}
	at := b.groups[0].at
	for _, g := range b.groups {
		for i, a := range g.Anchors {
			if strings.Contains(err.Error(), strconv.Quote(a.Pattern)) {
				at = g.anchors[i]
			}
		}
	}
	b.errorf(at, "", "%v", err)
}

// warnCrowds: slices that the kernel does not map by itself, because there are too many.
func (b *builder) warnCrowds(crowds []anchor.Crowd) {
	if len(crowds) == 0 {
		return
	}
	type slice struct {
		text string
		at   span
	}
	said := make(map[string]slice)
	for _, g := range b.groups {
		for i, a := range g.Anchors {
			said[a.Pattern] = slice{a.Text, g.anchors[i]}
		}
	}
	for _, c := range crowds {
		first, more := said[c.Patterns[0]], ""
		if n := len(c.Patterns) - 1; n > 0 {
			more = fmt.Sprintf(" and %d more", n)
		}
		b.warnf(first.at, `write fewer slices with "*" there, or name them`,
			"slice %s%s: no room among the %d globs below %s that the kernel matches by itself, where an overlap of two counts as one more: what is made there gets its group a moment later, perhaps after its first calls",
			quote(first.text), more, anchor.MaxPatterns, printable(c.Below))
	}
}

// checkSlices: a slice belongs to one group.
func (b *builder) checkSlices() {
	type owner struct {
		group string
		at    span
	}
	first := make(map[string]owner)
	for _, g := range b.groups {
		for i, a := range g.Anchors {
			at := g.anchors[i]
			o, taken := first[a.Pattern]
			switch {
			case !taken:
				first[a.Pattern] = owner{g.Name, at}
			case o.group == g.Name:
				b.errorf(at, "", "slice %s stands twice in group.%s, first at %s", quote(a.Text), printable(g.Name), o.at.position())
			default:
				b.errorf(at, "", "slice %s belongs to group.%s already: %s", quote(a.Text), printable(o.group), o.at.position())
			}
		}
	}
}

// checkWho checks everything in v that names a group.
func (b *builder) checkWho(v *vipDraft) {
	title := "vip." + printable(v.Name)
	client := b.checkGroups(v.clients, "clients", title)
	except := b.checkGroups(v.except, "except", title)
	for _, w := range v.except {
		if c, both := client[w.text]; both {
			b.errorf(w.at, "", "group %s stands in both clients (%s) and except of %s", quote(w.text), c.position(), title)
		}
	}
	for _, view := range v.views {
		if !b.isGroup(view.at, view.Group, title+".for") {
			continue
		}
		what := "for." + view.Group + ": "
		if at, excepted := except[view.Group]; excepted {
			b.errorf(view.at, "", "%sthe group does not see %s: it stands in except (%s)", what, title, at.position())
		} else if _, listed := client[view.Group]; v.Clients != nil && !listed {
			b.errorf(view.at, "", "%sthe group does not see %s: it is not among clients (%s)", what, title, v.clientsAt.position())
		} else if g := b.groupByID[view.Group]; g != nil && !g.Translate {
			b.errorf(view.at, "", "%sthe group does not see %s: it has translate = false (%s)", what, title, g.at.position())
		}
	}

	if v.Clients != nil && len(v.clients) == 0 && v.clientsAt.src != nil {
		b.warnf(v.clientsAt, "leave it out for every process on the host", "no group sees %s", title)
	}
	if v.Clients == nil && v.hiddenAt.src != nil && v.Hidden != HiddenPass { // the default may be said
		b.warnf(v.hiddenAt, "", "hidden does nothing in %s: it has no clients, so that everyone sees it", title)
	}
	if at := slices.Concat(v.backends.at, v.backends.unitsAt); len(at) > 0 && len(v.clients) > 0 && !slices.ContainsFunc(v.clients, func(w word) bool {
		return !slices.ContainsFunc(v.views, func(view *viewDraft) bool { return view.Group == w.text })
	}) {
		b.warnf(at[0], "", "the backends of %s serve nobody: each of its clients has a for", title)
	}
	for _, w := range v.clients {
		if g := b.groupByID[w.text]; g != nil && !g.Translate {
			b.warnf(w.at, "", "group %s is a client of %s and has translate = false: it reaches the address itself", quote(w.text), title)
		}
	}
}

// checkGroups returns where each group is named.
func (b *builder) checkGroups(words []word, key, title string) map[string]span {
	seen := make(map[string]span, len(words))
	for _, w := range words {
		if _, twice := seen[w.text]; twice {
			b.errorf(w.at, "", "group %s stands twice in %s of %s", quote(w.text), key, title)
			continue
		}
		seen[w.text] = w.at
		b.isGroup(w.at, w.text, key+" of "+title)
	}
	return seen
}

// hostGroup stands for every process that no group covers.
const hostGroup = "host"

// isGroup reports whether a group of that name is known, and complains if not.
func (b *builder) isGroup(at span, name, where string) bool {
	if b.groupByID[name] != nil || name == hostGroup {
		return true
	}
	if b.unread { // a file that could not be read may have it
		return false
	}
	known := []string{hostGroup}
	if len(b.groups) <= 1000 {
		for _, g := range b.groups {
			known = append(known, g.Name)
		}
	}
	b.errorf(at, suggest(name, known), "unknown group %s in %s", quote(name), where)
	return false
}

// checkCounts bounds the whole, at the first object too many.
func (b *builder) checkCounts() {
	if len(b.groups) > maxGroups {
		b.errorf(b.groups[maxGroups].at, "", "more than %d groups", maxGroups)
	}
	if len(b.vips) > maxVIPs {
		b.errorf(b.vips[maxVIPs].at, "", "more than %d VIPs", maxVIPs)
	}
	anchors := 0
	for _, g := range b.groups {
		if anchors += len(g.Anchors); anchors > maxAnchors {
			b.errorf(g.at, "", "more than %d slices in all groups", maxAnchors)
			break
		}
	}
	frontends, backends := 0, 0
	tooManyF, tooManyB := false, false
	for _, v := range b.vips {
		frontends += len(v.Frontends)
		backends += len(v.Backends) + len(v.Units)
		for _, view := range v.views {
			backends += len(view.Backends) + len(view.Units)
		}
		if frontends > maxFrontends && !tooManyF {
			tooManyF = true
			b.errorf(v.at, "", "more than %d frontends of all VIPs", maxFrontends)
		}
		if backends > maxBackends && !tooManyB {
			tooManyB = true
			b.errorf(v.at, "", "more than %d backends of all VIPs", maxBackends)
		}
	}
}

// config turns the drafts, which nothing refuses, into the value.
func (b *builder) config() *Config {
	c := &Config{
		Daemon: Daemon{LogLevel: DefaultLogLevel, Slots: DefaultSlots, UDPFlows: DefaultUDPFlows},
		Policy: b.policy.config(),
		Files:  b.files,
		Main:   b.main,
	}
	if b.daemon != nil {
		c.Daemon = b.daemon.Daemon
		c.Daemon.Origin = b.daemon.at.position()
	}
	for _, g := range b.groups {
		g.Origin = g.at.position()
		c.Groups = append(c.Groups, g.Group)
	}
	for _, v := range b.vips {
		v.Origin = v.at.position()
		for _, view := range v.views {
			view.Origin = view.at.position()
			v.For = append(v.For, view.View)
		}
		slices.SortFunc(v.For, func(a, b View) int { return strings.Compare(a.Group, b.Group) })
		c.VIPs = append(c.VIPs, v.VIP)
	}
	slices.SortFunc(c.VIPs, func(a, b VIP) int { return strings.Compare(a.Name, b.Name) })
	return c
}
