package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// hook is one place where a program of ours runs. A tracepoint has no cgroup.
type hook struct {
	program string
	attach  ebpf.AttachType
	ipv6    bool
}

func (h hook) tracepoint() bool { return h.attach == ebpf.AttachTraceRawTp }

// optional hooks cost something for every socket of the host: see Want.
func (h hook) optional() bool {
	return h.attach == ebpf.AttachCGroupSockOps || h.attach == ebpf.AttachCGroupInetSockCreate
}

// name is the hook's own: the program's without our prefix.
func (h hook) name() string { return strings.TrimPrefix(h.program, "slb_") }

// hooks in the order in which they are attached and updated: who reads what
// sockets remember comes before who writes it.
var hooks = []hook{
	{slicelbProgSlbCgroupMkdir, ebpf.AttachTraceRawTp, false},
	{slicelbProgSlbCgroupRmdir, ebpf.AttachTraceRawTp, false},
	{slicelbProgSlbSockops, ebpf.AttachCGroupSockOps, false},
	{slicelbProgSlbSockCreate, ebpf.AttachCGroupInetSockCreate, false},
	{slicelbProgSlbGetpeername4, ebpf.AttachCgroupInet4GetPeername, false},
	{slicelbProgSlbGetpeername6, ebpf.AttachCgroupInet6GetPeername, true},
	{slicelbProgSlbSockRelease, ebpf.AttachCgroupInetSockRelease, false},
	{slicelbProgSlbRecvmsg4, ebpf.AttachCGroupUDP4Recvmsg, false},
	{slicelbProgSlbRecvmsg6, ebpf.AttachCGroupUDP6Recvmsg, true},
	{slicelbProgSlbSendmsg4, ebpf.AttachCGroupUDP4Sendmsg, false},
	{slicelbProgSlbSendmsg6, ebpf.AttachCGroupUDP6Sendmsg, true},
	{slicelbProgSlbConnect4, ebpf.AttachCGroupInet4Connect, false},
	{slicelbProgSlbConnect6, ebpf.AttachCGroupInet6Connect, true},
}

// heldLink is a link and what it was when it was made or adopted.
type heldLink struct {
	link.Link
	id     link.ID
	cgroup uint64 // 0 for a tracepoint
}

func (l *heldLink) fd() int {
	if f, ok := l.Link.(interface{ FD() int }); ok {
		return f.FD()
	}
	return -1
}

// state reads what the kernel says now.
func (l *heldLink) state() (program ebpf.ProgramID, cgroup uint64, err error) {
	info, err := l.Info()
	if err != nil {
		return 0, 0, err
	}
	if c := info.Cgroup(); c != nil {
		cgroup = c.CgroupId
	}
	return info.Program, cgroup, nil
}

// attachLink is what tests replace to see a kernel without a hook.
var attachLink = func(h hook, dir *os.File, p *ebpf.Program) (link.Link, error) {
	if h.tracepoint() {
		return link.AttachTracing(link.TracingOptions{Program: p, AttachType: h.attach})
	}
	return link.AttachCgroup(link.CgroupOptions{
		Path: fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), Attach: h.attach, Program: p,
	})
}

// Attach runs the programs for everything in and below a directory of the
// cgroup2 hierarchy, and for every directory made in it anywhere. Hooks that are
// attached there already stay as they are; those that Check has something against are
// attached anew. On an error the hooks are as they were before.
//
// A kernel without IPv6 may refuse its hooks: see Missing. Programs of others on
// the same hooks are left alone; where one of theirs forbids ours, the error is
// a *FeatureError that names it.
func (d *Datapath) Attach(dir *os.File) error {
	if err := d.acquire(); err != nil {
		return err
	}
	defer d.release()
	d.attach.Lock()
	defer d.attach.Unlock()

	id, err := cgroupID(dir)
	if err != nil {
		return err
	}
	made := make(map[string]*heldLink)
	undo := func(err error) error {
		errs := []error{err}
		for _, l := range made {
			errs = append(errs, l.Close())
		}
		return errors.Join(errs...)
	}
	var missing []Feature
	for _, h := range hooks {
		if !d.wants(h) {
			continue
		}
		if l := d.links[h.program]; l != nil && d.severed(h) == "" {
			if _, cgroup, err := l.state(); err == nil && (h.tracepoint() || cgroup == id) {
				continue
			}
		}
		l, err := attachLink(h, dir, d.programs[h.program])
		if err != nil {
			if h.ipv6 && absent(err) {
				missing = append(missing, Feature{Name: h.name(), Reason: err.Error()})
				continue
			}
			return undo(attachError(h, dir, err))
		}
		held, err := hold(l)
		if err != nil {
			return undo(errors.Join(fmt.Errorf("attach %s: %w", h.name(), err), l.Close()))
		}
		made[h.program] = held
	}
	for program, l := range made {
		if old := d.links[program]; old != nil {
			if err := old.Close(); err != nil {
				d.opts.log().Warn("close dead link", "hook", program, "err", err)
			}
		}
		d.links[program] = l
	}
	d.dropUnwanted()
	d.missing = slices.DeleteFunc(d.missing, func(f Feature) bool { return f.Name != "ipv6" })
	d.missing = append(d.missing, missing...)
	return nil
}

// absent says that the kernel does not know the hook. Another error may pass:
// memory is short, or the hook has as many programs as it can.
func absent(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, ebpf.ErrNotSupported)
}

func hold(l link.Link) (*heldLink, error) {
	info, err := l.Info()
	if err != nil {
		return nil, err
	}
	held := &heldLink{Link: l, id: info.ID}
	if c := info.Cgroup(); c != nil {
		held.cgroup = c.CgroupId
	}
	return held, nil
}

// attachError explains a refusal. The kernel says EPERM both for missing
// capabilities and for a hook that another program keeps for itself. What may
// pass is no *FeatureError.
func attachError(h hook, dir *os.File, err error) error {
	if !errors.Is(err, unix.EPERM) && !absent(err) {
		return fmt.Errorf("attach %s: %w", h.name(), err)
	}
	e := &FeatureError{Feature: "attach " + h.name(), Err: err}
	switch have, capErr := effectiveCapabilities(); {
	case !errors.Is(err, unix.EPERM):
	case capErr == nil && have&(1<<unix.CAP_NET_ADMIN|1<<unix.CAP_SYS_ADMIN) == 0:
		e.Hint = "needs CAP_NET_ADMIN"
	case h.tracepoint():
		e.Hint = "needs CAP_PERFMON"
	default:
		e.Hint = "a program attached without BPF_F_ALLOW_MULTI to this cgroup or one above it admits no other"
		if held := holders(h, dir); held != "" {
			e.Hint += ": " + held
		}
		e.Hint += "; run `slicelb doctor` as root to see whose it is"
	}
	return e
}

// holders lists the programs on a hook at dir and above, by id.
func holders(h hook, dir *os.File) string {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return ""
	}
	var found []string
	for ; ; path = filepath.Dir(path) {
		f, err := os.Open(path)
		if err != nil {
			break
		}
		result, err := link.QueryPrograms(link.QueryOptions{Target: int(f.Fd()), Attach: h.attach})
		f.Close()
		if err != nil {
			break // not a cgroup any more
		}
		for _, p := range result.Programs {
			found = append(found, fmt.Sprintf("program %d at %s", p.ID, path))
		}
		if path == "/" {
			break
		}
	}
	return strings.Join(found, ", ")
}

// Check says whether every hook that Attach attached still runs our program.
// The error joins one *DetachedError for each that does not.
func (d *Datapath) Check() error {
	if err := d.acquire(); err != nil {
		return err
	}
	defer d.release()
	d.attach.Lock()
	defer d.attach.Unlock()

	var errs []error
	for _, h := range hooks {
		if reason := d.severed(h); reason != "" {
			errs = append(errs, &DetachedError{Hook: h.name(), Reason: reason})
		}
	}
	return errors.Join(errs...)
}

func (d *Datapath) severed(h hook) string {
	l := d.links[h.program]
	if l == nil {
		if h.optional() && !d.wanted[h.name()] || slices.ContainsFunc(d.missing, func(f Feature) bool { return f.Name == h.name() }) {
			return ""
		}
		return "not attached"
	}
	program, cgroup, err := l.state()
	if err != nil {
		return err.Error()
	}
	if !h.tracepoint() && cgroup == 0 {
		return "the link is dead: its cgroup was removed, or somebody detached it"
	}
	info, err := d.programs[h.program].Info()
	if err != nil {
		return err.Error()
	}
	if id, ok := info.ID(); ok && id != program {
		return fmt.Sprintf("the link runs program %d, not ours (%d)", program, id)
	}
	return ""
}

// cgroupID is the directory's inode number, which is the cgroup's id.
func cgroupID(dir *os.File) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil {
		return 0, fmt.Errorf("look at %s: %w", dir.Name(), err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return 0, &FeatureError{
			Feature: "attach to " + dir.Name(),
			Hint:    "programs attach to the cgroup2 hierarchy; a host with version 1 alone cannot run them",
			Err:     errors.New("not a cgroup2 directory"),
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return 0, fmt.Errorf("look at %s: %w", dir.Name(), err)
	}
	return st.Ino, nil
}
