// Command bench measures what slicelb costs, beside the bare call and an empty
// program on the same hooks. It needs root and cgroup2, makes a cgroup and a
// network namespace of its own, and leaves nothing behind.
//
// Every figure is the minimum of interleaved rounds, each variant in turn, on
// one CPU: compare within one run, and quote ratios.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

const workerArg = "worker"

var (
	backendAddr = netip.MustParseAddrPort("127.0.0.2:7001") // what a VIP hit reaches
	directAddr  = netip.MustParseAddrPort("127.0.0.2:7001") // what the others connect to
	vipAddr     = netip.MustParseAddrPort("10.96.0.10:7000")
)

type options struct {
	rounds, ops int
	cgroupRoot  string
	apply       bool
	depth       bool
	flood       bool
	parts       bool
	policy      bool
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == workerArg {
		exit(work(os.Stdin, os.Stdout))
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 30, "interleaved rounds")
	flag.IntVar(&o.ops, "ops", 20000, "calls a round (a twentieth of it for TCP)")
	flag.StringVar(&o.cgroupRoot, "cgroup-root", "", "cgroup2 directory to work below (default: where it is mounted)")
	flag.BoolVar(&o.apply, "apply", false, "measure the control plane instead of connects")
	flag.BoolVar(&o.depth, "depth", false, "measure connects by how deep the caller is below its group")
	flag.BoolVar(&o.parts, "parts", false, "measure what the parts of a connect to a VIP cost")
	flag.BoolVar(&o.flood, "flood", false, "tell of 100,000 decisions a second instead")
	flag.BoolVar(&o.policy, "policy", false, "measure connects under a policy")
	flag.Parse()
	if o.rounds < 1 || o.ops < 20 {
		exit(errors.New("-rounds: want 1 or more, -ops: want 20 or more"))
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.apply {
		exit(runApply(ctx, os.Stdout))
	}
	if o.depth {
		exit(runDepths(ctx, o, os.Stdout))
	}
	if o.parts {
		exit(runParts(ctx, o, os.Stdout))
	}
	if o.flood {
		exit(runFlood(ctx, o, os.Stdout))
	}
	exit(runConnects(ctx, o, os.Stdout))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runConnects times each kind of call for each variant and prints ns and ratios.
func runConnects(ctx context.Context, o options, out io.Writer) error {
	list := specs
	if o.policy {
		list = policySpecs
	}
	least, err := measure(ctx, o, list, kinds)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\t")
	for _, k := range kinds {
		fmt.Fprintf(w, "%s ns\tratio\t", k)
	}
	fmt.Fprintln(w)
	for _, spec := range list {
		fmt.Fprintf(w, "%s\t", spec.name)
		for _, kind := range kinds {
			fmt.Fprintf(w, "%.0f\t%.2f\t", least[kind][spec.name], least[kind][spec.name]/least[kind]["bare"])
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// measure is the least ns of a call, by kind and variant, of rounds in which the
// variants take turns.
func measure(ctx context.Context, o options, list []spec, kinds []string) (least map[string]map[string]float64, err error) {
	base, done, err := arena(o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()

	var variants []*variant
	defer func() {
		for _, v := range slices.Backward(variants) {
			err = errors.Join(err, v.close())
		}
	}()
	for _, spec := range list {
		v, err := newVariant(base, spec.name, spec.addr)
		if err != nil {
			return nil, err
		}
		variants = append(variants, v)
		if spec.attach != nil {
			if err := spec.attach(v); err != nil {
				return nil, fmt.Errorf("%s: %w", spec.name, err)
			}
		}
		if err := v.start(); err != nil {
			return nil, err
		}
	}

	least = map[string]map[string]float64{}
	for _, kind := range kinds {
		least[kind] = map[string]float64{}
		ops := o.ops
		if kind == kindTCP {
			ops = max(1, o.ops/20)
		}
		for range o.rounds {
			for _, v := range variants {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				ns, err := v.time(kind, ops)
				if err != nil {
					return nil, err
				}
				if was, ok := least[kind][v.name]; !ok || ns < was {
					least[kind][v.name] = ns
				}
			}
		}
	}
	return least, nil
}

var kinds = []string{kindConnect, kindSocket, kindTCP}

// arena is where workers run: a cgroup, on one CPU and in a network namespace of
// this thread. done removes the cgroup.
func arena(o options) (base string, done func() error, err error) {
	runtime.LockOSThread() // workers inherit this thread's namespace and CPU
	if err := ownNetns(); err != nil {
		return "", nil, err
	}
	var cpus unix.CPUSet
	cpus.Set(runtime.NumCPU() - 1)
	if err := unix.SchedSetaffinity(0, &cpus); err != nil {
		return "", nil, fmt.Errorf("pin: %w", err)
	}
	base, err = ownCgroup(o.cgroupRoot)
	return base, func() error { return os.Remove(base) }, err
}

// ownNetns moves this thread to a new network namespace with loopback up.
func ownNetns() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("new network namespace: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	return nil
}

// ownCgroup makes a directory below the cgroup2 mount.
func ownCgroup(root string) (string, error) {
	if root == "" {
		for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			var st unix.Statfs_t
			if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
				root = dir
				break
			}
		}
		if root == "" {
			return "", errors.New("no cgroup2 mount found: name one with -cgroup-root")
		}
	}
	dir := filepath.Join(root, fmt.Sprintf("slicelb-bench.%d", os.Getpid()))
	return dir, os.Mkdir(dir, 0o755)
}
