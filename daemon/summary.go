package daemon

import (
	"github.com/slicelb/slicelb/internal/prose"
)

// tell informs the manager; that it cannot be told is logged only.
func (d *daemon) tell(lines ...string) {
	if err := d.notify.Send(lines...); err != nil {
		d.log.Warn("notify", "err", err)
	}
}

// summary is the line in systemctl status.
func (d *daemon) summary() string {
	if d.running == nil {
		return "serving what was adopted, without a configuration"
	}
	backends := 0
	for _, v := range d.running.cfg.VIPs {
		backends += len(v.Backends)
	}
	s := "no VIP is configured"
	if n := len(d.running.cfg.VIPs); n > 0 {
		s = prose.Plural(n, "VIP") + ", " + prose.Plural(backends, "backend")
	}
	s += ", " + prose.Plural(len(d.running.cfg.Groups), "group")
	if d.snap != nil {
		s += ", " + prose.Plural(len(d.snap.Cgroups), "cgroup")
	}
	if d.running.lastGood {
		s += "; LAST GOOD configuration: " + d.whyLastGood()
	} else if d.reloadErr != nil {
		s += "; the last reload FAILED"
	}
	if d.hooksErr != nil {
		s += "; hooks are not attached"
	}
	if d.applyErr != nil {
		s += "; the kernel does not have the newest state: " + d.applyErr.Error()
	}
	if text := d.apiErr.Load(); text != nil {
		s += "; " + *text
	}
	return s
}

// say keeps the line in systemctl status true.
func (d *daemon) say() {
	if s := d.summary(); d.ready && s != d.said {
		d.said = s
		d.tell("STATUS=" + s)
	}
}
