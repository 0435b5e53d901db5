package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/lb"
)

// runApply measures the control plane on real maps, attached to nothing:
// 10,000 VIPs of 10 backends and 1,000 groups.
func runApply(ctx context.Context, out io.Writer) error {
	const vips, backends, groups, changes = 10000, 10, 1000, 101
	d, err := bpf.New(bpf.Options{})
	if err != nil {
		return err
	}
	defer d.Close()

	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	start := time.Now()
	c, err := compile(vips, backends, groups, 0)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "TOML of %d VIPs, %d groups read and compiled to values\t%v\n", vips, groups, time.Since(start).Round(time.Millisecond))

	return withReconciler(d, func(r *lb.Reconciler) error {
		start := time.Now()
		state, err := c.state()
		if err != nil {
			return err
		}
		compiled := time.Since(start)
		result, err := r.Reconcile(ctx, state)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "applied from nothing: compile %v, %d writes\t%v\n", compiled.Round(time.Millisecond), result.Writes, time.Since(start).Round(time.Millisecond))

		var took []time.Duration
		for i := range changes {
			v := &c.cfg.VIPs[len(c.cfg.VIPs)/2]
			v.Backends = slices.Clone(v.Backends)
			v.Backends[3].Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 200, 0, byte(i)}), 7001)
			start := time.Now()
			state, err := c.state()
			if err != nil {
				return err
			}
			compiled := time.Now()
			if _, err := r.Reconcile(ctx, state); err != nil {
				return err
			}
			took = append(took, time.Since(compiled))
			if i == 0 {
				fmt.Fprintf(w, "one changed backend: compile\t%v\n", compiled.Sub(start).Round(10*time.Microsecond))
			}
		}
		slices.Sort(took)
		fmt.Fprintf(w, "one changed backend: from the reconciler's having it to the kernel, median of %d\t%v\n", changes, took[len(took)/2].Round(10*time.Microsecond))
		fmt.Fprintf(w, "the same, slowest\t%v\n", took[len(took)-1].Round(10*time.Microsecond))

		kernel, err := kernelMemory(d)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "kernel memory of maps and programs, by /proc/self/fdinfo\t%d MiB\n", kernel>>20)
		debug.FreeOSMemory()
		rss, err := statusField("VmRSS")
		if err != nil {
			return err
		}
		peak, err := statusField("VmHWM")
		if err != nil {
			return err
		}
		anon, err := statusField("RssAnon")
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "process memory: resident, maps included\t%d MiB\n", rss>>20)
		fmt.Fprintf(w, "process memory: anonymous\t%d MiB\n", anon>>20)
		fmt.Fprintf(w, "process memory: peak resident\t%d MiB\n", peak>>20)
		return nil
	})
}

// kernelMemory is what the kernel charges for the maps and programs.
func kernelMemory(d *bpf.Datapath) (uint64, error) {
	var sum uint64
	for _, f := range d.FDs() {
		data, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", f.FD))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(data)) {
			if rest, ok := strings.CutPrefix(line, "memlock:"); ok {
				var n uint64
				if _, err := fmt.Sscan(rest, &n); err != nil {
					return 0, err
				}
				sum += n
			}
		}
	}
	return sum, nil
}

func statusField(name string) (uint64, error) { return field2bytes("/proc/self/status", name) }

// field2bytes reads a "Name: 12 kB" line.
func field2bytes(path, name string) (uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			var kb uint64
			if _, err := fmt.Sscan(rest, &kb); err != nil {
				return 0, fmt.Errorf("%s: %s: %w", path, name, err)
			}
			return kb << 10, nil
		}
	}
	return 0, fmt.Errorf("%s: no %s", path, name)
}
