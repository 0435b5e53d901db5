package config

import (
	"bytes"
	"regexp"
	"time"
)

// Keys that this version reads, and keys that it knows but refuses.
var (
	topKeys     = []string{"daemon", "group", "vip", "policy"}
	daemonKeys  = []string{"log_level", "http", "slots", "udp_flows"}
	groupKeys   = []string{"slices", "split", "split_metrics", "translate", "policy", "strict"}
	vipKeys     = []string{"frontends", "algorithm", "affinity", "clients", "except", "hidden", "when_down", "drain_timeout", "terminate", "reject_unknown_ports", "backend", "health", "for"}
	vipLater    = []string{"discover"}
	backendKeys = []string{"address", "unit", "weight"}
	viewKeys    = []string{"backend", "when_down"}
)

// Bounds of single values.
const (
	minSlots    = 4096
	maxSlots    = 1 << 28
	minUDPFlows = 4096
	maxUDPFlows = 1 << 24
	maxWeight   = 65535

	maxDrainTimeout = 24 * time.Hour
)

var nameSyntax = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$`)

// read adds one file.
func (b *builder) read(src *fileText) {
	b.files = append(b.files, src.name)
	m, ix, faults := decode(src)
	if len(faults) > 0 {
		b.unread = true
		b.add(src, faults...)
		return
	}
	if n := len(src.data); n > 0 && bytes.IndexByte(src.data[n-1:], '\n') < 0 {
		b.warnf(span{src, n - 1, n}, "cut short?", "no newline at the end of the file")
	}
	top := &table{builder: b, ix: ix, m: m}
	if t := top.table("daemon", "[daemon]"); t != nil {
		b.readDaemon(t)
	}
	if all := top.table("group", "[group]"); all != nil {
		for _, name := range all.keys() {
			key, _ := all.places(name)
			if t := all.table(name, "[group."+printable(name)+"]"); t != nil {
				b.checkName(key, "group", name)
				b.readGroup(t, name)
			}
		}
	}
	if all := top.table("vip", "[vip]"); all != nil {
		for _, name := range all.keys() {
			key, _ := all.places(name)
			if t := all.table(name, "[vip."+printable(name)+"]"); t != nil {
				b.checkName(key, "VIP", name)
				b.readVIP(t, name)
			}
		}
	}
	if t := top.table("policy", "[policy]"); t != nil {
		b.readPolicy(t)
	}
	top.rest(topKeys, nil)
}

func (b *builder) checkName(at span, kind, name string) {
	switch {
	case name == hostGroup || name == AnyGroup:
		b.errorf(at, "", "a %s cannot be named %s: the word has a meaning of its own", kind, quote(name))
	case !nameSyntax.MatchString(name):
		b.errorf(at, "1 to 63 of a-z, 0-9, _ and -, with a letter or digit at both ends", "bad %s name %s", kind, quote(name))
	}
}

// twice refuses an object that another file holds already.
func (b *builder) twice(at span, what string, first span) {
	b.errorf(at, "", "%s stands in another file already: %s", what, first.position())
}

func (b *builder) readDaemon(t *table) {
	d := &daemonDraft{at: t.own()}
	d.LogLevel = t.choice("log_level", DefaultLogLevel, "debug", "info", "warn", "error")
	d.HTTP = b.readListen(t)
	d.Slots = t.number("slots", DefaultSlots, minSlots, maxSlots)
	if t.m["udp_flows"] == int64(0) {
		delete(t.m, "udp_flows") // said, and the default
	}
	d.UDPFlows = t.number("udp_flows", DefaultUDPFlows, minUDPFlows, maxUDPFlows)
	t.rest(daemonKeys, nil)
	if b.daemon != nil {
		b.twice(d.at, "[daemon]", b.daemon.at)
		return
	}
	b.daemon = d
}

func (b *builder) readGroup(t *table, name string) {
	g := &groupDraft{at: t.own()}
	g.Name = name
	g.Translate = t.boolean("translate", true)
	g.Strict = t.boolean("strict", false)
	if s, at, ok := t.text("policy"); ok {
		g.Policy = b.ruleDefault(at, "policy"+t.in(), s)
	}

	first := b.groupByID[name]
	slices, _, complete := t.words("slices")
	if len(slices) == 0 && complete && first == nil {
		b.errorf(g.at, `slices = ["web.slice"]`, "%s names no slices", t.title)
	}
	for _, w := range slices {
		pattern, err := anchorPattern(w.text)
		if err != nil {
			b.errorf(w.at, err.hint, "%s", err.message)
			continue
		}
		if below, ok := belowMount(pattern); ok {
			b.warnf(w.at, "write "+quote(below), "slice %s is looked for below the cgroup root: the place where it is mounted is no part of it", quote(w.text))
		}
		g.Anchors = append(g.Anchors, Anchor{Text: w.text, Pattern: pattern, Origin: w.at.position()})
		g.anchors = append(g.anchors, w.at)
	}
	if s, at, ok := t.text("split"); ok {
		if err := checkSplit(s); err != nil {
			b.errorf(at, err.hint, "%s", err.message)
		}
		g.Split = s
	}
	g.metricsAt = t.said("split_metrics")
	g.SplitMetrics = t.number("split_metrics", 0, 0, maxSplitMetrics)
	t.rest(groupKeys, nil)

	if first != nil {
		b.twice(g.at, "group."+printable(name), first.at)
		return
	}
	b.groupByID[name] = g
	b.groups = append(b.groups, g)
}

func (b *builder) readVIP(t *table, name string) {
	v := &vipDraft{at: t.own()}
	v.Name = name

	b.readChoice(t, v)
	v.unknownPortsAt = t.said("reject_unknown_ports")
	v.RejectUnknownPorts = t.boolean("reject_unknown_ports", false)
	v.WhenDown = WhenDown(t.choice("when_down", string(DownReject), string(DownReject), string(DownUseAll), string(DownPass)))
	v.hiddenAt = t.said("hidden")
	v.Hidden = Hidden(t.choice("hidden", string(HiddenPass), string(HiddenPass), string(HiddenReject)))

	v.Terminate = Terminate(t.choice("terminate", string(TerminateUDP), string(TerminateUDP), string(TerminateAll), string(TerminateNone)))
	v.DrainTimeout = t.duration("drain_timeout", DefaultDrainTimeout, 0, maxDrainTimeout)

	b.readFrontends(t, v)

	v.clients, v.clientsAt, _ = t.words("clients")
	v.except, _, _ = t.words("except")
	v.Clients = names(v.clients)
	v.Except = names(v.except)

	v.backends = b.readBackends(t, "vip."+printable(name)+".backend")
	v.Backends, v.Units = v.backends.fixed, v.backends.units

	if ht := t.table("health", "[vip."+printable(name)+".health]"); ht != nil {
		v.healthAt = ht.own()
		v.Health = b.readHealth(ht)
	}

	if all := t.table("for", "[vip."+printable(name)+".for]"); all != nil {
		for _, group := range all.keys() {
			key, _ := all.places(group)
			title := "vip." + printable(name) + ".for." + printable(group)
			if vt := all.table(group, "["+title+"]"); vt != nil {
				b.readView(vt, v, group, key, title)
			}
		}
	}
	t.rest(vipKeys, vipLater)

	if first := b.vipByID[name]; first != nil {
		b.twice(v.at, "vip."+printable(name), first.at)
		return
	}
	b.vipByID[name] = v
	b.vips = append(b.vips, v)
}

func (b *builder) readView(t *table, v *vipDraft, group string, at span, title string) {
	view := &viewDraft{at: at}
	view.Group = group
	view.WhenDown = WhenDown(t.choice("when_down", string(v.WhenDown), string(DownReject), string(DownUseAll), string(DownPass)))
	view.backends = b.readBackends(t, title+".backend")
	view.Backends, view.Units = view.backends.fixed, view.backends.units
	t.rest(viewKeys, nil)
	v.views = append(v.views, view)
}

func names(words []word) []string {
	if words == nil {
		return nil
	}
	out := make([]string, 0, len(words))
	for _, w := range words {
		out = append(out, w.text)
	}
	return out
}
