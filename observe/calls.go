package observe

import "github.com/slicelb/slicelb/bpf"

// remembered is how many calls may wait for their answer to be named.
const remembered = 4096

// calls remembers who made the newest TCP connects, by the socket: when the
// answer comes, the kernel does not know whose it is. Run's goroutine owns it.
type calls struct {
	bySocket map[uint64]Event
	sockets  []uint64 // the oldest at next
	next     int
}

func newCalls() calls { return calls{bySocket: map[uint64]Event{}} }

func (c *calls) note(e *Event) {
	if e.Told != bpf.Translated || e.Proto != bpf.TCP {
		return
	}
	if _, ok := c.bySocket[e.Socket]; !ok {
		if len(c.sockets) < remembered {
			c.sockets = append(c.sockets, e.Socket)
		} else {
			delete(c.bySocket, c.sockets[c.next])
			c.sockets[c.next] = e.Socket
			c.next = (c.next + 1) % remembered
		}
	}
	c.bySocket[e.Socket] = *e
}

// recall fills in who called; nothing where that is forgotten.
func (c *calls) recall(e *Event) {
	call, ok := c.bySocket[e.Socket]
	if !ok || call.Decision.VIP != e.Decision.VIP {
		return
	}
	e.Cgroup, e.Member, e.PID, e.TGID = call.Cgroup, call.Member, call.PID, call.TGID
	e.Comm, e.Dir, e.Parent = call.Comm, call.Dir, call.Parent
	e.Group, e.View, e.Unit, e.Path = call.Group, call.View, call.Unit, call.Path
}
