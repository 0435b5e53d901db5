// Package health asks backends whether they answer, and says which ones do not.
// It owns the checks' sockets and the verdicts; nobody else writes either. It
// knows no VIP's rules: how many backends may be out at once, and what a verdict
// means for the kernel, is for whoever compiles the verdicts.
//
// A [Checker] is given the backends as one immutable list (Set) and gives back
// one immutable value with a verdict for each (Verdicts), the newest alone.
// Checks go to the addresses in the list and nowhere else: no name is resolved,
// no redirect followed, no proxy used, and at most 4 KiB of an answer are read.
//
// All checks but those over TLS run in one goroutine on non-blocking sockets:
// a backend that is slow costs a descriptor, not a goroutine, and there are at
// most maxOpen of them.
//
// Time is monotonic, and what passes while the process does not run does not
// count: after a SIGSTOP, a suspended host or a starved CPU, a check that was
// under way has as much time left as before.
package health

import (
	"crypto/x509"
	"fmt"
	"iter"
	"net/netip"
	"strings"
	"time"
)

// Type is how a backend is checked.
type Type uint8

const (
	TCP   Type = iota // a connection is accepted
	HTTP              // a GET is answered with an expected status
	HTTPS             // the same over TLS
)

func (t Type) String() string {
	switch t {
	case HTTP:
		return "http"
	case HTTPS:
		return "https"
	default:
		return "tcp"
	}
}

// Check is how backends are checked and judged. It is immutable; many targets
// share one.
type Check struct {
	Type     Type
	Path     string         // of HTTP
	Host     string         // of HTTP: Host and TLS name; "" = the target's address
	Headers  []Header       // of HTTP
	Expect   []Range        // of HTTP
	Roots    *x509.CertPool // of HTTPS; nil = the system's
	Insecure bool           // of HTTPS: the certificate is not verified
	Broken   error          // not nil: nothing is checked, verdicts stay, and this is why

	Interval time.Duration // from start to start, less up to a tenth
	Timeout  time.Duration // at most Interval
	Fall     int           // failures in a row until Down
	Rise     int           // successes in a row until Up
}

// Header is one field of a request.
type Header struct{ Name, Value string }

// Range is statuses from Low to High.
type Range struct{ Low, High int }

// key is equal for checks that ask the same.
func (c *Check) key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %q %q %q %v %p %t %v %d %d %d %d", c.Type, c.Path, c.Host, c.Headers, c.Expect, c.Roots, c.Insecure,
		c.Broken, c.Interval, c.Timeout, c.Fall, c.Rise)
	return b.String()
}

// Target is one backend of one VIP.
type Target struct {
	VIP   string
	Addr  netip.AddrPort
	Check *Check

	// Assume stands until the first check has ended, unless the checker knows
	// the backend already: what is known from before, or a backend's initial
	// state. Since belongs to it.
	Assume State
	Since  time.Time
}

// State is what a verdict says.
type State uint8

const (
	Unchecked State = iota // no check has ended: the first one decides alone
	Up
	Down
)

func (s State) String() string {
	switch s {
	case Up:
		return "up"
	case Down:
		return "down"
	default:
		return "unchecked"
	}
}

// Verdict is what is known of one backend.
type Verdict struct {
	State State
	Since time.Time // of the state
}

// Verdicts is a verdict for each target of one list. It is immutable.
type Verdicts struct {
	Set       uint64 // the number of the call of Set that gave the list
	Unchecked int    // targets without any verdict

	targets []Target
	list    []Verdict
}

// All yields the targets in the order of their list.
func (v *Verdicts) All() iter.Seq2[Target, Verdict] {
	return func(yield func(Target, Verdict) bool) {
		for i := range v.targets {
			if !yield(v.targets[i], v.list[i]) {
				return
			}
		}
	}
}

// Result is the newest check of a backend.
type Result struct {
	Verdict
	Checks uint64        // that have ended
	Last   time.Time     // when the newest ended; zero: none has
	Took   time.Duration // of the newest
	Err    error         // of the newest; nil: it succeeded
	Run    int           // successes, or failures, in a row up to the newest
}

// Stats is what a checker has done since Run began.
type Stats struct {
	Targets   int    // of the list
	Probes    int    // distinct checks of distinct addresses
	Open      int    // under way
	Checks    uint64 // that have ended
	Failed    uint64
	Suspected uint64        // of Checks, and of those under way: started by a suspicion
	Void      uint64        // that say nothing: the host was short of something, or did not run
	Late      time.Duration // the longest delay of a check's start in the last 10 s
	Stalled   time.Duration // how long the process did not run, as far as it was noticed
}
