package bpf

import (
	"net/netip"
	"time"
)

// Seen is a call that a rule with the action audit let through, and how often.
type Seen struct {
	Group uint32 // index
	Addr  netip.AddrPort
	Proto uint8
	Count uint64
	Last  time.Duration // CLOCK_BOOTTIME
	Rule  uint32        // that let the newest through, of the policy of then
}

// Seen lists what rules with the action audit let through since the maps were
// made, or since ForgetSeen. What found no room is counted in Stats.SeenFull.
func (d *Datapath) Seen() ([]Seen, error) {
	if err := d.acquire(); err != nil {
		return nil, err
	}
	defer d.release()
	var out []Seen
	err := each(d.maps[slicelbMapPolicySeen], func(k slicelbSlbSeenKey, v slicelbSlbSeen) {
		out = append(out, Seen{
			Group: k.Group, Addr: netip.AddrPortFrom(decodeAddr(k.Addr), swapPort(k.PortBe)), Proto: k.Proto,
			Count: v.Count, Last: time.Duration(v.LastNs), Rule: v.Rule,
		})
	})
	return out, err
}

// ForgetSeen empties Seen and Stats.SeenFull. What is recorded meanwhile may go, too.
func (d *Datapath) ForgetSeen() error {
	if err := d.acquire(); err != nil {
		return err
	}
	defer d.release()
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.forgetSeen(func(uint32) bool { return true }); err != nil {
		return err
	}
	return zero[uint64](d, slicelbMapStats, uint32(slicelbSlbStatSLB_STAT_SEEN_FULL))
}

// forgetSeen deletes what was recorded of groups, as of one whose index is given up.
func (d *Datapath) forgetSeen(of func(group uint32) bool) error {
	var keys []slicelbSlbSeenKey
	err := each(d.maps[slicelbMapPolicySeen], func(k slicelbSlbSeenKey, _ slicelbSlbSeen) {
		if of(k.Group) {
			keys = append(keys, k)
		}
	})
	for _, k := range keys {
		if err == nil {
			err = d.remove(slicelbMapPolicySeen, k)
		}
	}
	return err
}
