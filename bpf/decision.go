package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Told is what a call came to, as a decision tells it.
type Told uint8

const (
	Translated Told = Told(slicelbSlbToldSLB_TOLD_TRANSLATED)
	Passed     Told = Told(slicelbSlbToldSLB_TOLD_PASSED)   // left untouched, though the address is a frontend
	Rejected   Told = Told(slicelbSlbToldSLB_TOLD_REJECTED) // EHOSTUNREACH
	Denied     Told = Told(slicelbSlbToldSLB_TOLD_DENIED)   // EPERM, by policy
	Audited    Told = Told(slicelbSlbToldSLB_TOLD_AUDITED)  // allowed, by a rule that wants to be told

	// A TCP connect that was translated has its answer. The caller is not known:
	// Socket is that of the decision before. Only while Time is on and SockOps
	// attached.
	Connected Told = Told(slicelbSlbToldSLB_TOLD_CONNECTED)
)

// Tolds are all of them.
var Tolds = []Told{Translated, Passed, Rejected, Denied, Audited, Connected}

// ToldNames are the words for them.
func ToldNames() []string {
	names := make([]string, len(Tolds))
	for i, t := range Tolds {
		names[i] = t.String()
	}
	return names
}

// Refusal says whether this is told to nobody in particular too.
func (t Told) Refusal() bool { return t >= Rejected && t <= Audited }

func (t Told) String() string {
	switch t {
	case Translated:
		return "translated"
	case Passed:
		return "passed"
	case Rejected:
		return "rejected"
	case Denied:
		return "denied"
	case Audited:
		return "audited"
	case Connected:
		return "connected"
	}
	return "verdict-" + strconv.Itoa(int(t))
}

// Reason is why a call came to what it came to.
type Reason uint8

const (
	Chosen        Reason = Reason(slicelbSlbReasonSLB_WHY_CHOSEN)   // a backend was drawn
	GroupAlone    Reason = Reason(slicelbSlbReasonSLB_WHY_GROUP)    // the group has translate = false
	InExcept      Reason = Reason(slicelbSlbReasonSLB_WHY_EXCEPT)   // it stands in except
	NoClient      Reason = Reason(slicelbSlbReasonSLB_WHY_HIDDEN)   // it is not among clients
	AllDown       Reason = Reason(slicelbSlbReasonSLB_WHY_DOWN)     // no backend takes connections
	OtherLoopback Reason = Reason(slicelbSlbReasonSLB_WHY_LOOPBACK) // the backend is on another namespace's loopback
	BackendGone   Reason = Reason(slicelbSlbReasonSLB_WHY_GONE)     // the backend that was drawn went away meanwhile
	ByRule        Reason = Reason(slicelbSlbReasonSLB_WHY_RULE)     // a policy's rule
	ByDefault     Reason = Reason(slicelbSlbReasonSLB_WHY_DEFAULT)  // the policy's default
	PolicyError   Reason = Reason(slicelbSlbReasonSLB_WHY_ERROR)    // a policy could not be looked up
	UnknownPort   Reason = Reason(slicelbSlbReasonSLB_WHY_PORT)     // the VIP has no such port, and refuses it
	NoHook        Reason = Reason(slicelbSlbReasonSLB_WHY_STRICT)   // a socket that no hook sees, of a strict group
)

func (r Reason) String() string {
	switch r {
	case Chosen:
		return "chosen"
	case GroupAlone:
		return "translate"
	case InExcept:
		return "except"
	case NoClient:
		return "hidden"
	case UnknownPort:
		return "port"
	case NoHook:
		return "strict"
	case AllDown:
		return "down"
	case OtherLoopback:
		return "loopback-netns"
	case BackendGone:
		return "backend-gone"
	case ByRule:
		return "rule"
	case ByDefault:
		return "default"
	case PolicyError:
		return "policy-error"
	}
	return "reason-" + strconv.Itoa(int(r))
}

// Decision is one that the programs told of.
type Decision struct {
	Time    time.Duration  // CLOCK_MONOTONIC
	Cgroup  uint64         // of the caller
	Member  uint64         // the nearest cgroup that has a group; 0 = none
	Netns   uint64         // cookie of the socket's network namespace
	Socket  uint64         // cookie
	Asked   netip.AddrPort // not valid: a socket was asked for
	Backend netip.AddrPort // not valid: there is none
	Proto   uint8
	Send    bool       // a datagram that names its destination; else a connect
	Making  SocketKind // what was to be made; else zero
	Told    Told
	Reason  Reason
	PID     uint32        // the thread, in the first pid namespace
	TGID    uint32        // the process
	Group   uint32        // index
	VIP     uint32        // default cell; 0 = no VIP was asked for
	Cell    uint32        // that decided
	Index   uint32        // of the backend
	Rule    uint32        // of the policy; 0 = none
	Took    time.Duration // to connect; 0 = not known
	Comm    Comm
	Dir     DirName // of the caller's cgroup
	Parent  DirName // of the one above it
}

// SocketKind is a socket's type and protocol, as socket(2) has them.
type SocketKind struct {
	Type     uint8
	Protocol uint16
}

func (k SocketKind) String() string {
	if k.Type == unix.SOCK_RAW {
		return "raw"
	}
	switch k.Protocol {
	case unix.IPPROTO_MPTCP:
		return "mptcp"
	case unix.IPPROTO_SCTP:
		return "sctp"
	case unix.IPPROTO_DCCP:
		return "dccp"
	case unix.IPPROTO_UDPLITE:
		return "udplite"
	}
	return "protocol-" + strconv.Itoa(int(k.Protocol))
}

// Comm is a thread's name: other people's text, up to its first NUL.
type Comm [len(slicelbSlbDecisionEvent{}.Comm)]byte

func (c Comm) String() string { return untilNUL(c[:]) }

// DirName is the name of a cgroup directory, cut where it is longer: other
// people's text, up to its first NUL.
type DirName [len(slicelbSlbDecisionEvent{}.Dir)]byte

func (n DirName) String() string { return untilNUL(n[:]) }

func untilNUL(b []byte) string {
	text, _, _ := bytes.Cut(b, []byte{0})
	return string(text)
}

// pollInterval is how often the ring buffer is looked at while somebody watches:
// the programs do not wake the reader up then. idleInterval is how often besides:
// they do, but not for what comes after a record that was told without and that
// nobody has read yet.
const (
	pollInterval = 5 * time.Millisecond
	idleInterval = time.Second
)

// DecisionReader reads decisions; they are lost, and counted in
// Stats.DecisionsLost, while nobody does.
type DecisionReader struct {
	ring   *ringbuf.Reader
	record ringbuf.Record
	poll   atomic.Bool
}

// Decisions opens the ring buffer of decisions. There may be one reader at a time.
func (d *Datapath) Decisions() (*DecisionReader, error) {
	if err := d.acquire(); err != nil {
		return nil, err
	}
	defer d.release()
	r, err := ringbuf.NewReader(d.maps[slicelbMapDecisions])
	if err != nil {
		return nil, fmt.Errorf("open decisions: %w", err)
	}
	return &DecisionReader{ring: r}, nil
}

// Poll says whether somebody watches: Read looks more often then. It is turned on
// before Watch wants something, and off after Watch wants nothing more.
func (r *DecisionReader) Poll(on bool) {
	if r.poll.Swap(on) != on && on {
		_ = r.ring.Flush() // a Read that waits; the reader may be closed
	}
}

// Read waits for the next decision; io.EOF after Close.
func (r *DecisionReader) Read(d *Decision) error {
	for {
		wait := idleInterval
		if r.poll.Load() {
			wait = pollInterval
		}
		r.ring.SetDeadline(time.Now().Add(wait))
		err := r.ring.ReadInto(&r.record)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ringbuf.ErrFlushed):
			continue
		case errors.Is(err, ringbuf.ErrClosed):
			return io.EOF
		case err != nil:
			return fmt.Errorf("read decision: %w", err)
		}
		if decodeDecision(r.record.RawSample, d) {
			return nil
		}
	}
}

// Close ends a Read that waits.
func (r *DecisionReader) Close() error { return r.ring.Close() }

func decodeDecision(sample []byte, d *Decision) bool {
	var e slicelbSlbDecisionEvent
	if !decodeRecord(sample, &e) {
		return false
	}
	*d = Decision{
		Time: time.Duration(e.TimeNs), Cgroup: e.Cgroup, Member: e.Member, Netns: e.Netns, Socket: e.Socket,
		Asked: netip.AddrPortFrom(decodeAddr(e.Addr), swapPort(e.PortBe)),
		Proto: e.Proto, Send: e.What == uint8(slicelbSlbWhatSLB_WHAT_SEND), Told: Told(e.Told), Reason: Reason(e.Reason),
		PID: e.Pid, TGID: e.Tgid, Group: e.Group, VIP: e.DefaultCell, Cell: e.Cell, Index: e.BackendIndex,
		Rule: e.Rule, Took: time.Duration(e.TookUs) * time.Microsecond,
	}
	if e.What == uint8(slicelbSlbWhatSLB_WHAT_SOCKET) {
		d.Making, d.Asked, d.Proto = SocketKind{e.Proto, swapPort(e.PortBe)}, netip.AddrPort{}, 0
	}
	if e.BackendPortBe != 0 {
		d.Backend = netip.AddrPortFrom(decodeAddr(e.Backend), swapPort(e.BackendPortBe))
	}
	copyBytes(d.Comm[:], e.Comm[:])
	copyBytes(d.Dir[:], e.Dir[:])
	copyBytes(d.Parent[:], e.Parent[:])
	return true
}

// copyBytes copies C's text up to its NUL; to is all NUL.
func copyBytes(to []byte, from []int8) {
	for i, c := range from {
		if c == 0 {
			return
		}
		to[i] = byte(c)
	}
}
