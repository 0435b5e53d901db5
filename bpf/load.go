package bpf

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// newSpec is what tests replace to be another build.
var newSpec = loadSlicelb

// flowsPerCPU keeps an LRU map from evicting what is in use: each CPU holds back
// a batch of elements of its own.
const flowsPerCPU = 256 * 16

// size sets the capacities that the loader may choose.
func size(spec *ebpf.CollectionSpec, opts Options) error {
	set := func(n uint32, names ...string) {
		for _, name := range names {
			if n != 0 {
				spec.Maps[name].MaxEntries = n
			}
		}
	}
	c := opts.Capacities
	set(c.Frontends, slicelbMapFrontends, slicelbMapFrontendRefs)
	set(c.Cells, slicelbMapCells, slicelbMapCellAffinity, slicelbMapCellInfos, slicelbMapCellCounters, slicelbMapLatencies)
	set(c.Views, slicelbMapViews)
	set(c.Backends, slicelbMapBackends, slicelbMapBackendCells, slicelbMapBackendTraits,
		slicelbMapBackendCounters)
	set(c.Groups, slicelbMapGroups, slicelbMapGroupInfos, slicelbMapTellBudgets)
	set(c.Cgroups, slicelbMapCgroups)
	set(opts.events, slicelbMapEvents)
	set(opts.decisions, slicelbMapDecisions)
	set(c.Expect, slicelbMapExpect, slicelbMapExpectPatterns)
	set(c.PolicyLines, slicelbMapPolicyLines)
	set(opts.seen, slicelbMapPolicySeen)

	slots := opts.Slots
	if slots == 0 {
		slots = c.Slots
	}
	set((slots+slotsPerElem-1)/slotsPerElem, slicelbMapSlots)

	flows := opts.UDPFlows
	if flows == 0 {
		cpus, err := ebpf.PossibleCPU()
		if err != nil {
			return fmt.Errorf("count processors: %w", err)
		}
		flows = max(spec.Maps[slicelbMapUdpChoice].MaxEntries, uint32(cpus)*flowsPerCPU)
	}
	set(flows, slicelbMapUdpChoice, slicelbMapUdpReverse, slicelbMapAffinity)
	return nil
}

// Build tells the programs of one build from those of another, on one kernel.
func Build() string { return build() }

var build = sync.OnceValue(func() string {
	sum := sha256.Sum256(_SlicelbBytes)
	return hex.EncodeToString(sum[:8])
})

// load makes the maps that are not given, and loads the programs.
func load(spec *ebpf.CollectionSpec, given map[string]*ebpf.Map, opts Options) (*ebpf.Collection, error) {
	coll, err := loadSideBySide(spec, given)
	if err == nil {
		return coll, nil
	}
	var verifier *ebpf.VerifierError
	switch {
	case missingCapabilities() != "":
		// Which program is refused first, and how, is chance: without CAP_PERFMON the
		// verifier knows no helper of tracing, and says that instead.
		opts.log().Debug("the kernel refused to load", "err", err)
		return nil, notPermitted(err)
	case errors.As(err, &verifier):
		// The error prints a summary; the whole log is for whoever asked for it.
		opts.log().Debug("verifier refused a program", "log", fmt.Sprintf("%+v", verifier))
		return nil, fmt.Errorf("load programs: %w", err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		opts.log().Debug("the kernel refused to load", "err", err)
		return nil, notPermitted(err)
	case errors.Is(err, btf.ErrNotFound), errors.Is(err, btf.ErrNotSupported):
		return nil, &FeatureError{
			Feature: "load programs",
			Hint:    "the kernel's type information (CONFIG_DEBUG_INFO_BTF) is needed",
			Err:     err,
		}
	case errors.Is(err, ebpf.ErrNotSupported):
		return nil, &FeatureError{Feature: "load programs", Hint: "Linux 6.1 or later is needed", Err: err}
	}
	return nil, fmt.Errorf("load programs: %w", err)
}

// notPermitted says what is missing. The loader's own guess is the limit on locked
// memory, which Linux 6.1 and later do not ask about: it is left out.
func notPermitted(err error) error {
	code := unix.EPERM
	if errors.Is(err, unix.EACCES) {
		code = unix.EACCES
	}
	return &FeatureError{
		Feature: "load programs",
		Hint:    "needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON" + missingCapabilities(),
		Err:     code,
	}
}

// loadSideBySide makes the maps and then loads the programs, as many at once as
// there are processors: the kernel verifies one for hundreds of milliseconds.
func loadSideBySide(spec *ebpf.CollectionSpec, given map[string]*ebpf.Map) (_ *ebpf.Collection, err error) {
	bare := spec.Copy()
	clear(bare.Programs)
	kernel := btf.NewCache() // its types are decoded once, not for each program
	coll, err := ebpf.NewCollectionWithOptions(bare, ebpf.CollectionOptions{MapReplacements: given, Cache: kernel})
	if err != nil {
		return nil, err
	}
	names := slices.Collect(maps.Keys(spec.Programs))
	slices.SortFunc(names, func(a, b string) int { // the longest first
		return cmp.Or(len(spec.Programs[b].Instructions)-len(spec.Programs[a].Instructions), cmp.Compare(a, b))
	})
	loaded := make([]*ebpf.Program, len(names))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, name := range names {
		one := spec.Copy()
		maps.DeleteFunc(one.Programs, func(other string, _ *ebpf.ProgramSpec) bool { return other != name })
		g.Go(func() error {
			c, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{MapReplacements: coll.Maps, Cache: kernel})
			if err != nil {
				return err
			}
			loaded[i] = c.DetachProgram(name)
			c.Close() // of the maps it has copies
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		for _, p := range loaded {
			p.Close()
		}
		coll.Close()
		return nil, err
	}
	for i, name := range names {
		coll.Programs[name] = loaded[i]
	}
	return coll, nil
}

// capabilities that the data plane needs, by their numbers.
var capabilities = []struct {
	name string
	bit  uint
}{
	{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN},
	{"CAP_PERFMON", unix.CAP_PERFMON},
	{"CAP_BPF", unix.CAP_BPF},
}

func missingCapabilities() string {
	have, err := effectiveCapabilities()
	if err != nil || have&(1<<unix.CAP_SYS_ADMIN) != 0 {
		return ""
	}
	var missing []string
	for _, c := range capabilities {
		if have&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	if missing == nil {
		return ""
	}
	return "; missing: " + strings.Join(missing, ", ")
}

func effectiveCapabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32, nil
}

// netnsCookie names the network namespace of the calling thread.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("read the network namespace's cookie: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read the network namespace's cookie: %w", err)
	}
	return cookie, nil
}
