package bpf

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Adopt takes over what an earlier process left in a descriptor store: the
// newest set that is complete and of this layout. The descriptors are Adopt's:
// used, or closed, whatever comes of it and whatever their names. Programs of
// another build are replaced in place, hook by hook, readers before writers, and no
// hook is empty in between; where the new programs do not load, the old ones go on.
// Capacities are those that the maps have, whatever opts says. Programs of
// opts.Build are not loaded again to be compared, where that is this build.
//
// ErrNothingStored: no name was ours. ErrForeign (*AdoptError): no set can be
// used; the hooks go on as they are as long as the store holds them. ErrLayout: the
// newest is of another layout and its programs run, so that a new data plane would
// take the names of their peers from sockets that are open.
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

func (s *storedSet) adopt(opts Options) (_ *Datapath, err error) {
	if s.layout != currentLayout() {
		return nil, &AdoptError{
			Set:    s.name,
			Reason: fmt.Sprintf("layout %s; this program knows %s", s.layout, currentLayout()),
			layout: s.linked(),
		}
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
	// No hook has been touched up to here, and what open puts right (leases, the
	// filters, the network namespace's cookie) is right for any program.
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
		if !strings.HasPrefix(name, ".") && kernelName(info.Name) != kernelName(name) {
			return s.error(object, fmt.Sprintf("is foreign: its name is %q", info.Name), nil)
		}
		want := m.Copy()
		want.MaxEntries = have.MaxEntries()
		if strings.HasPrefix(name, ".") {
			want.MaxEntries = m.MaxEntries
			want.Flags |= unix.BPF_F_MMAPABLE
		}
		if err := want.Compatible(have); err != nil {
			// Another layout in all but its number.
			return &AdoptError{Set: s.name, Object: object, Reason: "does not fit", Err: err, layout: s.linked()}
		}
		m.MaxEntries = want.MaxEntries
	}
	return nil
}

// kernelName is what the kernel keeps of an object's name. The rest comes from the
// object's type information, where this process may read that.
func kernelName(name string) string { return name[:min(len(name), unix.BPF_OBJ_NAME_LEN-1)] }

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
