package health

import (
	"errors"
	"net/netip"
	"syscall"
	"time"
)

// probe is one check of one address, for every target that wants just that.
type probe struct {
	addr     netip.AddrPort
	check    *Check
	request  []byte // of HTTP
	sockaddr []byte

	state  State
	since  time.Time
	run    int // successes in a row, or failures below 0
	checks uint64
	last   time.Time
	took   time.Duration
	err    error

	suspect bool          // to be checked at once: see Suspect
	hurried bool          // the check that is under way, or the newest, is such a one
	accused time.Duration // when the newest of them began, on the run clock

	flight *flight       // nil: none is under way
	when   time.Duration // on the run clock: the next start, or the flight's deadline
	place  int           // in the queue; -1 = not there
}

func newProbe(t Target, now time.Time) *probe {
	return &probe{
		addr: t.Addr, check: t.Check, request: request(t.Check, t.Addr), sockaddr: sockaddr(t.Addr), since: now, err: t.Check.Broken, place: -1,
		accused: -suspectGap,
	}
}

// inherit takes over what is known of t's backend from another check, or what t
// assumes.
func (p *probe) inherit(known *probe, t Target) {
	switch {
	case known != nil && known.state != Unchecked:
		p.state, p.since = known.state, known.since
		p.last, p.took = known.last, known.took
		if p.err == nil {
			p.err = known.err
		}
	case t.Assume != Unchecked:
		p.state, p.since = t.Assume, t.Since
	}
}

// rounded is a start that others share: at most a fiftieth of the interval earlier.
func (p *probe) rounded(start time.Duration) time.Duration {
	return start - start%max(min(startGrain, p.check.Interval/50), 1)
}

// flight is a check that is under way. A prober may keep what it likes in slot.
type flight struct {
	probe   *probe
	started time.Duration // on the run clock
	stalled time.Duration // how long the process had stood still by then
	again   bool          // its time has begun anew
	err     error         // when it has ended
	slot    int
	read    []byte // of an answer that came in pieces
}

// prober makes checks. One goroutine calls it, but for wake.
type prober interface {
	// start begins f; true: it has ended already.
	start(f *flight) bool
	// stop ends f, whose outcome is of no interest any more.
	stop(f *flight)
	// wait returns the flights that have ended, when there are some, when wake
	// was called, or after d. The slice is valid until the next call.
	wait(d time.Duration) []*flight
	wake()
	// room is how many more may be under way; own says that the prober watches
	// f's time itself.
	room() int
	own(f *flight) bool
	close() error
}

// Errors of checks.
var (
	errConnectTimeout = errors.New("timeout: no connection")
	errAnswerTimeout  = errors.New("timeout: no answer")
	errNoStatus       = errors.New("no status in the first 4 KiB of the answer")
	errShort          = errors.New("the connection was closed before there was an answer")
)

// localError is a check that says nothing of the backend: this host is short of
// something.
type localError struct{ err error }

func (e *localError) Error() string { return "not checked: " + e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// isLocal reports whether an error of socket() or connect() is this host's own.
func isLocal(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL, syscall.EAGAIN:
		return true
	}
	return false
}

// void reports whether the end of f says nothing of the backend. A peer that
// closed, or a clock that ran out, while the process stood still for long may be
// the pause's own doing; a refusal is the backend's word in any case. stalled is
// how long the process has stood still, own that f's deadline was not moved by
// it.
func (f *flight) void(stalled time.Duration, own bool) bool {
	var local *localError
	switch {
	case f.err == nil:
		return false
	case errors.As(f.err, &local):
		return true
	case errors.Is(f.err, syscall.ECONNREFUSED):
		return false
	}
	patience := f.probe.check.Timeout
	if own {
		patience /= 4
	}
	return stalled-f.stalled >= patience
}

// judge takes the end of a check in; true: the verdict has changed.
func (p *probe) judge(err error, now time.Time, took time.Duration) bool {
	p.checks++
	p.last, p.took, p.err = now, took, err
	if err == nil {
		p.run = max(p.run, 0) + 1
	} else {
		p.run = min(p.run, 0) - 1
	}
	want := p.state
	switch {
	case p.state == Unchecked && err == nil:
		want = Up
	case p.state == Unchecked:
		want = Down
	case p.state == Up && -p.run >= p.check.Fall:
		want = Down
	case p.state == Down && p.run >= p.check.Rise:
		want = Up
	}
	if want == p.state {
		return false
	}
	p.state, p.since = want, now
	return true
}
