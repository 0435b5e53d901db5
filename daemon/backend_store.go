package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/lb"
)

// What is decided about backends has a memfd of its own in the descriptor store:
// it changes with every verdict, and the configuration beside it may be large.

// runtimeVersion is the layout of that memfd. A reader refuses what is newer.
const runtimeVersion = 1

// runtimeName, then the generation, is its name in the store.
const runtimeName = "runtime-v1."

// maxRuntime bounds what is read back.
const maxRuntime = 64 << 20

// saveInterval is the least time between two memfds for verdicts' sake.
const saveInterval = 2 * time.Second

// runtimeState is what the memfd holds.
type runtimeState struct {
	Version    int             `json:"version"`
	Generation uint64          `json:"generation"`
	Orders     []storedOrder   `json:"orders"`
	Verdicts   []storedVerdict `json:"verdicts"`
	Patterns   []string        `json:"patterns,omitempty"` // that Units are of
	Units      []storedUnit    `json:"units,omitempty"`
	Back       []storedBack    `json:"back,omitempty"`
}

type storedBack struct {
	VIP     string         `json:"vip"`
	Address netip.AddrPort `json:"address"`
	Since   moment         `json:"since"`
}

type storedOrder struct {
	VIP     string         `json:"vip"`
	Address netip.AddrPort `json:"address"`
	State   string         `json:"state"` // drain or maint
	Since   moment         `json:"since"`
	UID     uint32         `json:"uid"`
	Unit    string         `json:"unit,omitempty"`
	Run     string         `json:"run,omitempty"`
	ByUnit  bool           `json:"by_unit,omitempty"`
}

type storedUnit struct {
	Name  string         `json:"name"`
	State discover.State `json:"state"`
	Since moment         `json:"since"`
	Run   string         `json:"run,omitempty"`
}

type storedVerdict struct {
	VIP     string         `json:"vip"`
	Address netip.AddrPort `json:"address"`
	Up      bool           `json:"up"`
	Since   moment         `json:"since"`
}

func isRuntime(name string) bool { return strings.HasPrefix(name, "runtime-v") }

// seal writes the state into a new memfd, which takes the place of the last.
func (b *backendStates) seal() error {
	s := runtimeState{Version: runtimeVersion, Generation: b.generation + 1, Orders: []storedOrder{}, Verdicts: []storedVerdict{}}
	for e, o := range b.operator {
		s.Orders = append(s.Orders, storedOrder{e.VIP, e.Addr, o.State, momentOf(o.Since), o.UID, o.Unit, o.Run, o.ByUnit})
	}
	for e, at := range b.back {
		s.Back = append(s.Back, storedBack{e.VIP, e.Addr, momentOf(at)})
	}
	if b.units != nil {
		s.Patterns = b.units.Patterns
		for _, u := range b.units.List {
			s.Units = append(s.Units, storedUnit{u.Name, u.State, momentOf(u.Since), u.Run})
		}
	}
	for t, v := range b.found() {
		if v.State != health.Unchecked {
			s.Verdicts = append(s.Verdicts, storedVerdict{t.VIP, t.Addr, v.State == health.Up, momentOf(v.Since)})
		}
	}
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("runtime state: %w", err)
	}
	f, err := fdstore.Seal("slicelb-runtime", text)
	if err != nil {
		return fmt.Errorf("runtime state: %w", err)
	}
	if b.stateFile != nil {
		defer b.stateFile.Close()
	}
	b.stateFile, b.generation, b.unsaved = f, s.Generation, false
	return nil
}

// wanted is the memfd, if there is one.
func (b *backendStates) wanted() []fdstore.FD {
	if b.stateFile == nil {
		return nil
	}
	return []fdstore.FD{{Name: runtimeName + strconv.FormatUint(b.generation, 10), FD: int(b.stateFile.Fd())}}
}

// restore takes the newest state among the descriptors of the process before.
// What cannot be read is told, and left out.
func (b *backendStates) restore(fds []fdstore.FD) error {
	var newest *runtimeState
	var errs []error
	for _, f := range fds {
		n, ok := strings.CutPrefix(f.Name, runtimeName)
		if g, err := strconv.ParseUint(n, 10, 64); ok && err == nil {
			b.generation = max(b.generation, g)
		}
		if !isRuntime(f.Name) {
			continue
		}
		s, err := readRuntime(f.FD)
		if err != nil {
			errs = append(errs, fmt.Errorf("stored state %s: %w", f.Name, err))
			continue
		}
		if newest == nil || s.Generation > newest.Generation {
			newest = s
		}
	}
	if newest == nil {
		return errors.Join(errs...)
	}
	b.restored = newest.Generation
	for _, o := range newest.Orders {
		if o.State == api.OrderDrain || o.State == api.OrderMaint {
			b.operator[lb.Endpoint{VIP: o.VIP, Addr: o.Address}] = order{o.State, o.Since.time(), o.UID, o.Unit, o.Run, o.ByUnit}
		}
	}
	for _, r := range newest.Back {
		b.back[lb.Endpoint{VIP: r.VIP, Addr: r.Address}] = r.Since.time()
	}
	if len(newest.Patterns) > 0 {
		b.units = &discover.Units{Patterns: newest.Patterns}
		for _, u := range newest.Units {
			if u.State >= discover.Active && u.State <= discover.Waiting {
				b.units.List = append(b.units.List, discover.Unit{Name: u.Name, State: u.State, Since: u.Since.time(), Run: u.Run})
			}
		}
		slices.SortFunc(b.units.List, func(a, b discover.Unit) int { return strings.Compare(a.Name, b.Name) })
	}
	for _, v := range newest.Verdicts {
		state := health.Down
		if v.Up {
			state = health.Up
		}
		b.known[lb.Endpoint{VIP: v.VIP, Addr: v.Address}] = health.Verdict{State: state, Since: v.Since.time()}
	}
	return errors.Join(errs...)
}

func readRuntime(fd int) (*runtimeState, error) {
	s := new(runtimeState)
	if err := fdstore.Unseal(fd, maxRuntime, s); err != nil {
		return nil, err
	}
	if s.Version != runtimeVersion {
		return nil, fmt.Errorf("version %d, this program knows %d", s.Version, runtimeVersion)
	}
	return s, nil
}

// saveVerdicts stores what the checks found, now and then, without waiting for
// the manager. A kill in between costs what was found since: the next process
// checks at once.
func (d *daemon) saveVerdicts() { d.saveStates(saveInterval) }

// saveStates is saveVerdicts where the last one was so long ago, or longer where it
// took long.
func (d *daemon) saveStates(interval time.Duration) {
	b := d.backends
	if !b.unsaved || !d.ready || d.kept.err != nil || time.Since(b.saved) < max(interval, 20*b.savedIn) {
		return
	}
	begun := time.Now()
	err := b.seal()
	if err == nil {
		// The old one goes when the new one is known to be held: count.
		for _, f := range b.wanted() {
			err = errors.Join(err, d.kept.store.Offer(f))
		}
		d.kept.want = len(d.wanted())
		d.kept.counter.Poke()
	}
	if err != nil {
		d.log.Warn("store what is known of backends", "err", err)
		b.unsaved = true
	}
	b.saved = time.Now()
	b.savedIn = b.saved.Sub(begun)
}
