package daemon

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/internal/prose"
	"github.com/slicelb/slicelb/lb"
)

// backendStates is what is decided about backends while the daemon runs: what
// operators said, and what checks found. The loop owns it, but for the checker,
// which anyone may ask.
type backendStates struct {
	checker  *health.Checker
	operator map[lb.Endpoint]order
	back     map[lb.Endpoint]time.Time      // when an operator has made them ready again
	known    map[lb.Endpoint]health.Verdict // from the process before
	verdicts *health.Verdicts               // the newest; nil: none yet
	begun    map[lb.Endpoint]bool           // that verdicts says nothing of, until those of set come
	set      uint64                         // the list that was given last
	version  uint64                         // grows with whatever runtime depends on

	next     *time.Timer // when the kernel is to be brought up to date again
	earliest time.Time   // not before
	step     time.Time   // when runtime changes by itself; zero: it does not

	units *discover.Units // as stored and to be stored

	changes chan *backendChange
	open    []*backendChange // that wait, in the order in which they came
	notes   []string         // what a status says

	stateFile  *os.File // the sealed memfd of the newest state
	generation uint64
	restored   uint64 // the generation of what was handed over and read
	unsaved    bool
	saved      time.Time
	savedIn    time.Duration
}

// order is what an operator said about a backend.
type order struct {
	State string    // drain or maint
	Since time.Time // of the state
	UID   uint32    // whose word it is

	Unit   string // that the backend was, then; "" = none
	Run    string // of the unit
	ByUnit bool   // it is about that run, and ends with it
}

func newBackendStates() *backendStates {
	b := &backendStates{
		checker: health.New(), operator: map[lb.Endpoint]order{}, back: map[lb.Endpoint]time.Time{}, known: map[lb.Endpoint]health.Verdict{},
		begun: map[lb.Endpoint]bool{},
		next:  time.NewTimer(time.Hour), changes: make(chan *backendChange),
	}
	b.next.Stop()
	return b
}

// targets are the backends to check for src: those of the VIPs that have health
// checks and that no operator has in maintenance. before is what ran until now.
func (b *backendStates) targets(src, before *source) []health.Target {
	var out []health.Target
	plain := map[lb.Endpoint]bool{} // in use without checks
	if before != nil {
		for i := range before.cfg.VIPs {
			if v := &before.cfg.VIPs[i]; v.Health == nil && src.checks[v.Name] != nil {
				endpoints(v, func(be config.Backend) { plain[lb.Endpoint{VIP: v.Name, Addr: be.Addr}] = true })
			}
		}
	}
	for i := range src.cfg.VIPs {
		v := &src.cfg.VIPs[i]
		check := src.checks[v.Name]
		if check == nil {
			continue
		}
		endpoints(v, func(be config.Backend) {
			e := lb.Endpoint{VIP: v.Name, Addr: be.Addr}
			if b.operator[e].State == api.OrderMaint || src.rests(e) {
				return
			}
			t := health.Target{VIP: v.Name, Addr: be.Addr, Check: check}
			known, ok := b.known[e]
			switch {
			case ok:
				t.Assume, t.Since = known.State, known.Since
			case plain[e] || v.Health.Initial == config.InitialUp || check.Broken != nil:
				t.Assume = health.Up
			}
			out = append(out, t)
		})
	}
	return out
}

// watch has the backends of src checked, and those of before that are not in it.
// Either may be nil; without src what is checked stays.
func (b *backendStates) watch(src, before *source) {
	if src == nil {
		return
	}
	list := b.targets(src, before)
	if before != nil && before != src {
		have := make(map[lb.Endpoint]bool, len(list))
		for _, t := range list {
			have[lb.Endpoint{VIP: t.VIP, Addr: t.Addr}] = true
		}
		for _, t := range b.targets(before, nil) {
			if !have[lb.Endpoint{VIP: t.VIP, Addr: t.Addr}] {
				list = append(list, t)
			}
		}
	}
	b.set = b.checker.Set(list)
}

// maxLogged is how many changes of one moment are told one by one.
const maxLogged = 20

// minApplyGap is the least time between two changes of the kernel's tables for
// the backends' sake.
const minApplyGap = 10 * time.Millisecond

// count takes note that something was said of backends: how many are out, and why.
func (b *backendStates) count() {
	b.version++
	counts := map[[2]string]int{}
	for e, o := range b.operator {
		text := "in maintenance"
		if o.State == api.OrderDrain {
			text = "drained by an operator"
		}
		counts[[2]string{e.VIP, text}]++
	}
	for t, v := range b.found() {
		switch v.State {
		case health.Down:
			counts[[2]string{t.VIP, "failing health checks"}]++
		case health.Unchecked:
			counts[[2]string{t.VIP, "not checked yet"}]++
		}
	}
	b.notes = b.notes[:0:0]
	for k, n := range counts {
		b.notes = append(b.notes, fmt.Sprintf("vip.%s: %s %s", k[0], prose.Plural(n, "backend"), k[1]))
	}
	slices.Sort(b.notes)
}

// healthNotes are what a status says of backends.
func (d *daemon) healthNotes(note func(string, ...any)) {
	for _, text := range d.backends.notes {
		note("%s", text)
	}
	if d.running == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(d.running.checks)) {
		if err := d.running.checks[name].Broken; err != nil {
			note("vip.%s: its backends are not checked: %v", name, err)
		}
	}
	if d.selfShared {
		if addrs := d.running.frontendsChecked(); len(addrs) > 0 {
			note("the daemon shares its cgroup with other processes: health checks of %s, which is a frontend too, go through its VIP", addrs[0])
		}
	}
}

// frontendsChecked are checked backends whose addresses are frontends.
func (s *source) frontendsChecked() []netip.AddrPort {
	fronts := map[netip.AddrPort]bool{}
	for i := range s.cfg.VIPs {
		for _, f := range s.cfg.VIPs[i].Frontends {
			if f.Proto == config.TCP {
				fronts[f.Addr] = true
			}
		}
	}
	var out []netip.AddrPort
	for i := range s.cfg.VIPs {
		if v := &s.cfg.VIPs[i]; s.checks[v.Name] != nil {
			endpoints(v, func(b config.Backend) {
				if fronts[b.Addr] {
					out = append(out, b.Addr)
				}
			})
		}
	}
	return out
}

// returned takes note of backends that an operator has made ready, which were out.
func (b *backendStates) returned(all []lb.Endpoint, before map[lb.Endpoint]order, now time.Time) {
	next := maps.Clone(b.back) // the API reads the old one
	for _, e := range all {
		if before[e].State != "" {
			next[e] = now
		}
	}
	b.back = next
}

// forget drops what operators said about backends that are gone.
func (b *backendStates) forget(src *source) (gone []string) {
	if next := maps.Clone(b.back); len(next) > 0 {
		there := src.all()
		maps.DeleteFunc(next, func(e lb.Endpoint, _ time.Time) bool { return !there[e] })
		b.unsaved = b.unsaved || len(next) < len(b.back)
		b.back = next
	}
	if len(b.operator) == 0 {
		return nil
	}
	left := b.ordersLeft(src)
	for e, o := range b.operator {
		if _, stays := left[e]; !stays {
			gone = append(gone, fmt.Sprintf("%s %s %s", o.State, e.VIP, e.Addr))
		}
	}
	if len(gone) > 0 {
		b.operator, b.unsaved = left, true
	}
	b.count()
	return gone
}

// ordersLeft is what operators said about backends that src has, or may have again.
func (b *backendStates) ordersLeft(src *source) map[lb.Endpoint]order {
	there := src.all()
	left := maps.Clone(b.operator) // the API reads the old one
	maps.DeleteFunc(left, func(e lb.Endpoint, o order) bool {
		v := src.vip(e.VIP)
		return v == nil || !there[e] && !mayReturn(v, e, o)
	})
	return left
}
