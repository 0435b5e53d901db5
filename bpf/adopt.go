package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// storedSet is one data plane as a store handed it back.
type storedSet struct {
	layout, name string
	fds          map[string][]storedFD // "map cells" -> newest id first
}

type storedFD struct {
	name storedName
	fd   int
}

// Adopt takes over what an earlier process left in a descriptor store: the
// newest set that is complete and of this layout. From the moment a name is one
// of ours its descriptor is Adopt's: used, or closed. Programs of another build
// are replaced in place, hook by hook, readers before writers, and no hook is
// empty in between; where the new programs do not load, the old ones go on.
// Capacities are those that the maps have, whatever opts says. Programs of
// opts.Build are not loaded again to be compared, where that is this build.
//
// ErrNothingStored: no name was ours. ErrForeign (*AdoptError): no set can be
// used; the hooks go on as they are as long as the store holds them.
func Adopt(fds []NamedFD, opts Options) (*Datapath, error) {
	sets := storedSets(fds)
	if len(sets) == 0 {
		return nil, ErrNothingStored
	}
	var (
		adopted *Datapath
		newest  error
	)
	for _, s := range sets {
		if adopted == nil {
			d, err := s.adopt(opts)
			if err == nil {
				adopted = d
			} else if newest == nil {
				newest = err
			}
		}
		s.close()
	}
	if adopted == nil {
		return nil, newest
	}
	if newest != nil {
		opts.log().Warn("a newer stored data plane was left aside", "err", newest)
	}
	return adopted, nil
}

// storedSets sorts what is ours into sets, the newest first.
func storedSets(fds []NamedFD) []*storedSet {
	byName := make(map[string]*storedSet)
	for _, f := range fds {
		n, ok := parseStoredName(f.Name)
		if !ok {
			continue
		}
		key := n.layout + "-" + n.set
		s := byName[key]
		if s == nil {
			s = &storedSet{layout: n.layout, name: n.set, fds: make(map[string][]storedFD)}
			byName[key] = s
		}
		object := n.kind + " " + n.object
		s.fds[object] = append(s.fds[object], storedFD{n, f.FD})
	}
	var sets []*storedSet
	for _, s := range byName {
		for _, same := range s.fds {
			slices.SortFunc(same, func(a, b storedFD) int { return int(b.name.id) - int(a.name.id) })
		}
		sets = append(sets, s)
	}
	slices.SortFunc(sets, func(a, b *storedSet) int { return strings.Compare(b.name, a.name) })
	return sets
}

// take hands out the newest descriptor of an object; the caller owns it then.
func (s *storedSet) take(kind, object string) (int, bool) {
	key := kind + " " + object
	if len(s.fds[key]) == 0 {
		return -1, false
	}
	fd := s.fds[key][0].fd
	s.fds[key] = s.fds[key][1:]
	return fd, true
}

// close gives back what was not taken.
func (s *storedSet) close() {
	for object, same := range s.fds {
		for _, f := range same {
			unix.Close(f.fd)
		}
		delete(s.fds, object)
	}
}

func (s *storedSet) error(object, reason string, err error) error {
	return &AdoptError{Set: s.name, Object: object, Reason: reason, Err: err}
}

func (s *storedSet) adopt(opts Options) (_ *Datapath, err error) {
	if s.layout != currentLayout() {
		return nil, s.error("", fmt.Sprintf("layout %s; this program knows %s", s.layout, currentLayout()), nil)
	}
	spec, err := newSpec()
	if err != nil {
		return nil, err
	}
	d := &Datapath{
		opts:     opts,
		set:      s.name,
		maps:     make(map[string]*ebpf.Map),
		programs: make(map[string]*ebpf.Program),
		links:    make(map[string]*heldLink),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if err := s.takeMaps(d, spec); err != nil {
		return nil, err
	}
	if err := s.takePrograms(d, spec); err != nil {
		return nil, err
	}
	if err := s.takeLinks(d); err != nil {
		return nil, err
	}
	if err := d.open(spec); err != nil {
		return nil, err
	}
	// Nothing has been changed up to here.
	if err := d.renew(spec); err != nil {
		return nil, err
	}
	return d, nil
}

func (s *storedSet) takeMaps(d *Datapath, spec *ebpf.CollectionSpec) error {
	for name, m := range spec.Maps {
		if !stored(name) {
			continue
		}
		object := kindMap + " " + name
		fd, ok := s.take(kindMap, name)
		if !ok {
			if _, late := lateMaps[name]; late {
				continue
			}
			return s.error(object, "is missing", nil)
		}
		if err := objectIs(fd, "bpf-map"); err != nil {
			unix.Close(fd)
			return s.error(object, "is foreign", err)
		}
		have, err := ebpf.NewMapFromFD(fd)
		if err != nil {
			return s.error(object, "cannot be read", err)
		}
		d.maps[name] = have
		info, err := have.Info()
		if err != nil {
			return s.error(object, "cannot be read", err)
		}
		// The kernel keeps 15 bytes of a name.
		if kernel := name[:min(len(name), 15)]; !strings.HasPrefix(name, ".") && info.Name != kernel {
			return s.error(object, fmt.Sprintf("is foreign: its name is %q", info.Name), nil)
		}
		want := m.Copy()
		want.MaxEntries = have.MaxEntries()
		if strings.HasPrefix(name, ".") {
			want.MaxEntries = m.MaxEntries
			want.Flags |= unix.BPF_F_MMAPABLE
		}
		if err := want.Compatible(have); err != nil {
			return s.error(object, "does not fit", err)
		}
		m.MaxEntries = want.MaxEntries
	}
	return s.makeLate(d, spec)
}

// lateMaps are those that sets of earlier builds lack, with the map that each is
// as large as, if any. They are made anew: what they hold can be had again.
var lateMaps = map[string]string{
	slicelbMapBackendTraits: slicelbMapBackends,
	slicelbMapFailures:      "",
}

func (s *storedSet) makeLate(d *Datapath, spec *ebpf.CollectionSpec) error {
	for name, as := range lateMaps {
		if d.maps[name] != nil {
			continue
		}
		if as != "" {
			spec.Maps[name].MaxEntries = spec.Maps[as].MaxEntries
		}
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			return fmt.Errorf("make map %s: %w", name, err)
		}
		d.maps[name], d.late = m, true
	}
	return nil
}

// takePrograms may find fewer than there are: they are loaded anew anyway.
func (s *storedSet) takePrograms(d *Datapath, spec *ebpf.CollectionSpec) error {
	for name := range spec.Programs {
		object := kindProgram + " " + name
		fd, ok := s.take(kindProgram, name)
		if !ok {
			continue
		}
		if err := objectIs(fd, "bpf-prog"); err != nil {
			unix.Close(fd)
			return s.error(object, "is foreign", err)
		}
		p, err := ebpf.NewProgramFromFD(fd)
		if err != nil {
			return s.error(object, "cannot be read", err)
		}
		d.programs[name] = p
		if want := spec.Programs[name].Type; p.Type() != want {
			return s.error(object, fmt.Sprintf("is foreign: a %s program, not %s", p.Type(), want), nil)
		}
	}
	return nil
}

// takeLinks leaves out what is missing: Attach attaches it.
func (s *storedSet) takeLinks(d *Datapath) error {
	for _, h := range hooks {
		object := kindLink + " " + h.program
		fd, ok := s.take(kindLink, h.program)
		if !ok {
			continue
		}
		if err := objectIs(fd, "bpf-link"); err != nil {
			unix.Close(fd)
			return s.error(object, "is foreign", err)
		}
		l, err := link.NewFromFD(fd)
		if err != nil {
			return s.error(object, "cannot be read", err)
		}
		held, err := hold(l)
		if err != nil {
			return s.error(object, "cannot be read", errors.Join(err, l.Close()))
		}
		d.links[h.program] = held
		if !h.linkedBy(l) {
			return s.error(object, "is foreign: linked to another hook", nil)
		}
	}
	return nil
}

func (h hook) linkedBy(l link.Link) bool {
	info, err := l.Info()
	if err != nil {
		return false
	}
	if h.tracepoint() {
		tp := info.RawTracepoint()
		return tp != nil && "slb_"+tp.Name == h.program
	}
	c := info.Cgroup()
	return c != nil && uint32(c.AttachType) == uint32(h.attach)
}

// objectIs looks at what kind of object a descriptor is. BPF_OBJ_GET_INFO_BY_FD
// answers for any kind and would let a program pass for a map.
func objectIs(fd int, kind string) error {
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	target, err := os.Readlink(path)
	if err != nil {
		return err
	}
	if strings.ReplaceAll(target, "_", "-") != "anon-inode:"+kind {
		return fmt.Errorf("%s is not a %s", target, kind)
	}
	return nil
}

// renew puts this build's programs in place of the adopted ones, where they
// differ. Links are updated in place; a tracepoint's cannot be, so there both
// run for a moment (what they insert is the same).
func (d *Datapath) renew(spec *ebpf.CollectionSpec) error {
	if d.opts.Build == Build() && d.sameNames(spec) && !d.late {
		return d.renewLinks()
	}
	given := make(map[string]*ebpf.Map, len(d.maps))
	for name, m := range d.maps {
		given[name] = m
	}
	coll, err := load(spec, given, d.opts)
	if err != nil {
		for name := range spec.Programs {
			if d.programs[name] == nil {
				return &AdoptError{Set: d.set, Object: kindProgram + " " + name, Reason: "is missing", Err: err}
			}
		}
		d.opts.log().Error("programs of this build do not load; the adopted ones go on", "err", err)
		return nil
	}
	for name, m := range coll.Maps {
		if d.maps[name] == nil {
			d.maps[name] = m // scratch space and constants
		} else if err := m.Close(); err != nil {
			return fmt.Errorf("close clone of %s: %w", name, err)
		}
	}
	ours := mapIDs(d.maps)
	for name, fresh := range coll.Programs {
		old := d.programs[name]
		if old != nil && sameProgram(old, fresh, ours) {
			if err := fresh.Close(); err != nil {
				return err
			}
			continue
		}
		d.programs[name] = fresh
		if old != nil {
			if err := old.Close(); err != nil {
				return err
			}
		}
	}
	return d.renewLinks()
}

// sameNames says whether all programs are there, by the kernel's names of them.
func (d *Datapath) sameNames(spec *ebpf.CollectionSpec) bool {
	for name := range spec.Programs {
		p := d.programs[name]
		if p == nil {
			return false
		}
		info, err := p.Info()
		if err != nil || info.Name != name[:min(len(name), 15)] {
			return false
		}
	}
	return true
}

func (d *Datapath) renewLinks() error {
	for _, h := range hooks {
		if err := d.renewLink(h); err != nil {
			// The old program goes on; Check says so.
			d.opts.log().Error("replace program", "hook", h.name(), "err", err)
		}
	}
	return nil
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
