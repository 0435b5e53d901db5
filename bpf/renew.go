package bpf

import (
	"errors"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
)

// renew puts this build's programs in place of the adopted ones, where they
// differ. Links are updated in place; a tracepoint's cannot be, so there both
// run for a moment (what they insert is the same).
func (d *Datapath) renew(spec *ebpf.CollectionSpec) error {
	if d.opts.Build == Build() && d.sameNames(spec) {
		d.renewLinks()
		return nil
	}
	coll, err := load(spec, maps.Clone(d.maps), d.opts)
	if err != nil {
		for name := range spec.Programs {
			if d.programs[name] == nil {
				return &AdoptError{Set: d.set, Object: kindProgram + " " + name, Reason: "is missing", Err: err}
			}
		}
		d.opts.log().Error("programs of this build do not load; the adopted ones go on", "err", err)
		return nil
	}
	defer coll.Close() // copies of maps, and programs that are there already
	for name := range coll.Maps {
		if d.maps[name] == nil {
			d.maps[name] = coll.DetachMap(name) // scratch space and constants
		}
	}
	ours := mapIDs(d.maps)
	for name, fresh := range coll.Programs {
		old := d.programs[name]
		if old != nil && sameProgram(old, fresh, ours) {
			continue
		}
		d.programs[name] = coll.DetachProgram(name)
		if old == nil {
			continue
		}
		if err := old.Close(); err != nil {
			d.opts.log().Warn("close replaced program", "program", name, "err", err)
		}
	}
	d.renewLinks()
	return nil
}

// sameNames says whether all programs are there, by their names.
func (d *Datapath) sameNames(spec *ebpf.CollectionSpec) bool {
	for name := range spec.Programs {
		p := d.programs[name]
		if p == nil {
			return false
		}
		info, err := p.Info()
		if err != nil || kernelName(info.Name) != kernelName(name) {
			return false
		}
	}
	return true
}

func (d *Datapath) renewLinks() {
	for _, h := range hooks {
		if err := d.renewLink(h); err != nil {
			// The old program goes on; Check says so.
			d.opts.log().Error("replace program", "hook", h.name(), "err", err)
		}
	}
}

func (d *Datapath) renewLink(h hook) error {
	l := d.links[h.program]
	if l == nil {
		return nil
	}
	runs, cgroup, err := l.state()
	if err != nil {
		return err
	}
	if !h.tracepoint() && cgroup == 0 {
		return nil // dead: Attach replaces it
	}
	info, err := d.programs[h.program].Info()
	if err != nil {
		return err
	}
	if id, ok := info.ID(); ok && id == runs {
		return nil
	}
	if !h.tracepoint() {
		return l.Update(d.programs[h.program])
	}
	fresh, err := attachLink(h, nil, d.programs[h.program])
	if err != nil {
		return err
	}
	held, err := hold(fresh)
	if err != nil {
		return errors.Join(err, fresh.Close())
	}
	d.links[h.program] = held
	return l.Close()
}

func mapIDs(maps map[string]*ebpf.Map) map[ebpf.MapID]bool {
	ids := make(map[ebpf.MapID]bool)
	for name, m := range maps {
		if !stored(name) {
			continue
		}
		if info, err := m.Info(); err == nil {
			if id, ok := info.ID(); ok {
				ids[id] = true
			}
		}
	}
	return ids
}

// sameProgram: the same instructions, over the same of our maps.
func sameProgram(a, b *ebpf.Program, ours map[ebpf.MapID]bool) bool {
	infoA, errA := a.Info()
	infoB, errB := b.Info()
	if errA != nil || errB != nil || infoA.Tag != infoB.Tag {
		return false
	}
	use := func(info *ebpf.ProgramInfo) []ebpf.MapID {
		ids, _ := info.MapIDs()
		ids = slices.DeleteFunc(slices.Clone(ids), func(id ebpf.MapID) bool { return !ours[id] })
		slices.Sort(ids)
		return ids
	}
	return slices.Equal(use(infoA), use(infoB))
}
