package daemon

import (
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/lb"
)

// vipKey is a VIP in one family: a cell of its own.
type vipKey struct {
	name   string
	family uint8
}

// vipStates remembers which VIPs have nothing that takes connections, to say so
// when that changes. The loop owns it.
type vipStates struct {
	of   *lb.State // that down is of
	down map[vipKey]bool
}

// downVIPs are those of which nobody gets a backend for want of one.
func downVIPs(s *lb.State) map[vipKey]bool {
	down := map[vipKey]bool{}
	for _, v := range s.VIPs {
		out := isDown(v.Default.Action)
		served := v.Default.Action == bpf.Balance
		for i := range v.Views {
			out = out || isDown(v.Views[i].Action)
			served = served || v.Views[i].Action == bpf.Balance
		}
		if out && !served {
			down[vipKey{v.Name, v.Family}] = true
		}
	}
	return down
}

func isDown(a bpf.Action) bool { return a == bpf.RejectDown || a == bpf.PassDown }

// tellVIPs says which VIPs went down or came up with a state that the kernel has.
func (d *daemon) tellVIPs(s *lb.State) {
	if d.vips.of == s {
		return
	}
	before := d.vips.down
	d.vips = vipStates{of: s, down: downVIPs(s)}
	said := 0
	for _, v := range s.VIPs {
		key := vipKey{v.Name, v.Family}
		if d.vips.down[key] == before[key] {
			continue
		}
		if said++; said > maxLogged {
			continue
		}
		if d.vips.down[key] {
			d.log.Warn("no backend of the VIP takes connections", "event", eventVIPDown, "vip", v.Name, "family", v.Family)
		} else {
			d.log.Info("the VIP has backends again", "event", eventVIPUp, "vip", v.Name, "family", v.Family)
		}
	}
	if said > maxLogged {
		d.log.Warn("more VIPs went down or came up", "number", said-maxLogged)
	}
}
