package unitwatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/godbus/dbus/v5"
)

const (
	callTimeout  = 5 * time.Second
	listInterval = 200 * time.Millisecond // between calls of ListUnitsByPatterns
	maxNames     = 16                     // asked for at once: systemd compares each with each unit
	retryAtFirst = 50 * time.Millisecond
	retryAtMost  = 500 * time.Millisecond
)

var errDisconnected = errors.New("the bus closed the connection")

// Dial opens a stream to a message bus.
type Dial func(ctx context.Context) (io.ReadWriteCloser, error)

// bus keeps one connection of its own to the message bus, for as long as it
// runs. What it hears goes to the inbox, and decides nothing.
type bus struct {
	dial     Dial
	runs     string // directory of links to units' invocation ids
	log      *slog.Logger
	in       *inbox
	count    *counters
	requests chan nameRequest // cap 1
	answers  chan []unitName  // cap 1

	mu      sync.Mutex
	owner   string // unique name of systemd, "" = none
	changes uint64 // of owner, by signals
	moved   chan struct{}

	states     *unitStates
	names      nameRequest // to be answered; nil: none
	namesNext  time.Time   // not before
	namesTried int         // so often
	namesErr   string      // why the newest list of names failed
	unitsDue   bool        // states are to be asked for
	unitsNext  time.Time   // not before
	unitsLast  bool        // the newest list was of states
	unitsErr   string      // why the newest list of states failed
	matched    bool        // this connection's signals are those of units, too

	lastList time.Time
	forgery  sync.Once
}

func newBus(o Options, in *inbox, count *counters) *bus {
	return &bus{
		dial: o.Dial, runs: o.Runs, log: o.Log, in: in, count: count,
		requests: make(chan nameRequest, 1),
		answers:  make(chan []unitName, 1),
		moved:    make(chan struct{}, 1),
		states:   newUnitStates(),
	}
}

// run connects, and connects again, until ctx ends.
func (b *bus) run(ctx context.Context) error {
	retry := &backoff.ExponentialBackOff{
		InitialInterval: retryAtFirst, MaxInterval: retryAtMost,
		RandomizationFactor: 0.2, Multiplier: 2,
	}
	retry.Reset()
	last := ""
	for {
		begun, err := b.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if begun {
			retry.Reset()
		}
		cause := fmt.Sprintf("no message bus: %v", err)
		b.in.state(CgroupfsOnly, cause, "")
		b.states.away(cause)
		if cause != last || begun {
			b.log.Warn("no message bus, retrying; cgroupfs is watched all the same", "error", err)
			last = cause
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry.NextBackOff()):
		}
	}
}

// session is one connection, from start to end; begun says that it was usable.
func (b *bus) session(ctx context.Context) (begun bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Authentication knows no deadline, but ends with its connection.
	guard := time.AfterFunc(callTimeout, cancel)
	defer guard.Stop()
	raw, err := b.dial(ctx)
	if err != nil {
		return false, err
	}
	b.setOwner("")
	b.matched = false
	conn, err := dbus.NewConn(newFrames(raw, b.accept), dbus.WithSignalHandler(b), dbus.WithContext(ctx))
	if err != nil {
		return false, errors.Join(err, raw.Close())
	}
	defer conn.Close()
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err != nil {
		return false, fmt.Errorf("authenticate: %w", err)
	}
	if err := conn.Hello(); err != nil {
		return false, fmt.Errorf("hello: %w", err)
	}
	guard.Stop()
	if err := b.match(ctx, conn); err != nil {
		return false, err
	}
	if err := b.askOwner(ctx, conn); err != nil {
		return false, err
	}
	b.count.connects.Add(1)
	if err := b.subscribe(ctx, conn, "connected to the bus"); err != nil {
		return false, err // refused once, refused again: not at full speed
	}
	pace := time.NewTimer(0)
	defer pace.Stop()
	for {
		select {
		case <-conn.Context().Done():
			return true, errDisconnected
		case <-b.moved:
			if err := b.subscribe(ctx, conn, "systemd's name has another owner"); err != nil {
				return true, err
			}
		case b.names = <-b.requests:
		case <-b.states.wake:
			b.unitsDue = true
		case <-pace.C:
		}
		pace.Reset(b.lists(ctx, conn))
	}
}

func call(ctx context.Context, o dbus.BusObject, method string, args ...any) *dbus.Call {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return o.CallWithContext(ctx, method, dbus.FlagNoAutoStart, args...)
}

// match asks the bus for systemd's signals and for news of who systemd is.
func (b *bus) match(ctx context.Context, conn *dbus.Conn) error {
	rules := []string{fmt.Sprintf("type='signal',sender='%s',path='%s',interface='%s',member='%s',arg0='%s'",
		busName, busPath, busName, nameOwnerEvent, systemdName)}
	for _, m := range managerSignals {
		rules = append(rules, fmt.Sprintf("type='signal',sender='%s',path='%s',interface='%s',member='%s'",
			systemdName, systemdPath, managerIface, m))
	}
	for _, r := range rules {
		if err := call(ctx, conn.BusObject(), busName+".AddMatch", r).Err; err != nil {
			return fmt.Errorf("add match: %w", err)
		}
	}
	return nil
}

// askOwner finds out who systemd is, unless a signal that came later says so.
func (b *bus) askOwner(ctx context.Context, conn *dbus.Conn) error {
	b.mu.Lock()
	before := b.changes
	b.mu.Unlock()
	var owner string
	err := call(ctx, conn.BusObject(), busName+".GetNameOwner", systemdName).Store(&owner)
	var answer dbus.Error
	if errors.As(err, &answer) && answer.Name == busName+".Error.NameHasNoOwner" {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("owner of %s: %w", systemdName, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changes == before {
		b.owner = owner
	}
	return nil
}

func (b *bus) setOwner(owner string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owner = owner
	b.changes++
}

func (b *bus) currentOwner() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.owner
}

// subscribe turns on systemd's signals and has everything looked at, since none
// came before. That systemd is not there is no error: it may come.
func (b *bus) subscribe(ctx context.Context, conn *dbus.Conn, why string) error {
	if b.currentOwner() == "" {
		b.in.state(CgroupfsOnly, "systemd is not on the message bus", "systemd left the bus")
		b.states.away("systemd is not on the message bus")
		b.log.Warn("systemd is not on the message bus; cgroupfs is watched all the same")
		return nil
	}
	err := call(ctx, conn.Object(systemdName, systemdPath), managerIface+".Subscribe").Err
	var answer dbus.Error
	if errors.As(err, &answer) && answer.Name == systemdName+".AlreadySubscribed" {
		err = nil
	}
	if err != nil {
		if ctx.Err() == nil && conn.Connected() && b.currentOwner() == "" {
			return nil // it left meanwhile: moved says so
		}
		return fmt.Errorf("subscribe: %w", err)
	}
	b.in.state(Bus, "", why)
	b.states.markAll()
	b.log.Info("listening to systemd", "reason", why)
	return nil
}

// accept decides which messages are decoded: replies, and signals of systemd
// and of the bus itself. The bus vouches for the sender.
func (b *bus) accept(h header) bool {
	switch {
	case h.oversize, h.broken:
		b.count.malformed.Add(1)
		return false
	case h.kind == dbus.TypeMethodReply, h.kind == dbus.TypeError:
		return true
	case h.kind == dbus.TypeSignal && h.sender != "" && h.sender == b.currentOwner() && strings.HasPrefix(h.path, string(unitPrefix)+"/"):
		unit, ok := unitOfPath(h.path)
		return ok && b.states.wants(unit) // most are of others
	case h.kind == dbus.TypeSignal && (h.sender == busName || h.sender != "" && h.sender == b.currentOwner()):
		return true
	case h.kind == dbus.TypeSignal:
		b.forged(h.sender)
	default:
		b.count.unasked.Add(1)
	}
	return false
}

func (b *bus) forged(sender string) {
	b.count.forged.Add(1)
	b.forgery.Do(func() {
		b.log.Warn("signal dropped: its sender is not systemd; more are only counted", "sender", sender)
	})
}

// DeliverSignal implements dbus.SignalHandler. It never blocks.
func (b *bus) DeliverSignal(iface, member string, s *dbus.Signal) {
	fromBus := s.Sender == busName
	if !fromBus && (s.Sender == "" || s.Sender != b.currentOwner()) {
		b.forged(s.Sender)
		return
	}
	if !fromBus && iface == propertiesIface && member == propertiesChanged {
		if unit, ok := unitOfPath(string(s.Path)); ok {
			b.count.signals.Add(1)
			b.states.mark(unit)
		}
		return
	}
	if fromBus && (iface != busName || s.Path != busPath) || !fromBus && (iface != managerIface || s.Path != systemdPath) {
		return
	}
	e, ok, err := decodeSignal(iface, member, s.Body)
	if err != nil {
		b.count.malformed.Add(1)
		b.log.Debug("signal dropped", "error", err)
		return
	}
	if !ok {
		return
	}
	b.count.signals.Add(1)
	switch {
	case e.isOwner:
		b.setOwner(e.owner)
		select {
		case b.moved <- struct{}{}:
		default:
		}
	case e.isReload:
		b.in.reloading(e.reloading)
		if !e.reloading {
			b.states.markAll()
		}
	case e.isJob:
		b.states.mark(e.unit)
	case hasCgroup(e.unit):
		b.states.mark(e.unit)
		if !b.in.unit(e.unit) {
			b.count.overflows.Add(1)
		}
	}
}
