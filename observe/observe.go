// Package observe keeps and passes on what the programs tell of their
// decisions. It owns a bounded store of the newest ones and the watchers, each
// with a bounded buffer: neither a watcher that does not read nor a host that
// decides faster than anyone can read makes it hold more, and what is left out
// is counted and told.
//
// One goroutine, Run's, reads; what the programs are to tell follows from what
// the watchers want.
package observe

import (
	"slices"
	"strings"
	"time"

	"github.com/slicelb/slicelb/bpf"
)

// Host is the group of callers that no configured group covers.
const Host = "host"

// Event is a decision with the names that belong to its numbers.
type Event struct {
	bpf.Decision
	Seq   uint64 // grows by one with each event
	At    time.Time
	Group string // Host, or a group's; a split child's is "jobs/x.scope"
	VIP   string // "" = none was asked for
	View  string // the group whose view decided; "" = what everybody gets
	Unit  string // of the caller, as far as it is known: other people's text
	Path  string // of the caller's cgroup; where only its end is known it begins with "…/"
}

// Lost is what is missing in a stream at the place where it stands.
type Lost struct {
	Where string // LostKernel, LostBudget or LostWatcher
	Group string // of LostBudget
	Count uint64
}

const (
	LostKernel  = "kernel"  // the programs found their buffer full: whatever it was
	LostBudget  = "budget"  // refusals of one group, more than are told without being asked for
	LostWatcher = "watcher" // this watcher was too slow
)

// Query is what somebody wants to hear of. The zero value is everything.
type Query struct {
	VIP   string
	Group string // Host, a group, or a split child
	Told  []bpf.Told
	Since time.Time // of what is stored; zero = whatever there is
	Last  int       // so many of what is stored, at most; negative = all of it
	UID   uint32    // who asks: watchers are bounded by user; root is 0
}

func (q *Query) wants(e *Event) bool {
	if q.VIP != "" && q.VIP != e.VIP {
		return false
	}
	if q.Group != "" && q.Group != e.Group && !strings.HasPrefix(e.Group, q.Group+"/") {
		return false
	}
	return q.wantsTold(e.Told)
}

func (q *Query) wantsTold(t bpf.Told) bool { return len(q.Told) == 0 || slices.Contains(q.Told, t) }

// kernelGroup is the group as the programs know it: a split child has its
// parent's index.
func (q *Query) kernelGroup() string {
	parent, _, _ := strings.Cut(q.Group, "/")
	return parent
}
