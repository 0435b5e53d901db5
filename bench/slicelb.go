package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/cilium/ebpf/link"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// The variants, in the order in which they take turns.
var specs = []spec{
	{"bare", directAddr, nil},
	{"empty program", directAddr, (*variant).attachEmpty},
	{"VIP hit", vipAddr, func(v *variant) error { return v.attachSlicelb(1, 1, 1) }},
	{"hit, random of 10", vipAddr, func(v *variant) error { return v.attachChoosing("") }},
	{"hit, least of 10", vipAddr, func(v *variant) error { return v.attachChoosing(`algorithm = "least-connections"`) }},
	{"hit, Maglev and affinity", vipAddr, func(v *variant) error {
		return v.attachChoosing("algorithm = \"maglev\"\naffinity = \"10m\"")
	}},
	{"hit, watched", vipAddr, (*variant).attachWatched},
	{"no VIP", directAddr, func(v *variant) error { return v.attachSlicelb(1, 1, 1) }},
	{"no VIP, no release", directAddr, func(v *variant) error { return v.attachSlicelb(1, 1, 1, "slb_sock_release") }},
	{"hit of 10,000", vipAddr, func(v *variant) error { return v.attachSlicelb(10000, 10, 1000) }},
	{"none of 10,000", directAddr, func(v *variant) error { return v.attachSlicelb(10000, 10, 1000) }},
}

type spec struct {
	name   string
	addr   netip.AddrPort
	attach func(*variant) error
}

// controlPlane is everything from TOML to the maps, without systemd: the one
// group that has members holds the cgroup that the benchmark says.
type controlPlane struct {
	cfg    *config.Config
	tree   *anchor.Tree
	member lb.Membership
}

// compile reads a configuration of so many VIPs, backends of each, and groups.
// The first VIP is vipAddr with backends that all are backendAddr's listener.
func compile(vips, backends, groups int, cgroup uint64) (*controlPlane, error) {
	var toml strings.Builder
	for g := range groups {
		fmt.Fprintf(&toml, "[group.g%d]\nslices = [\"g%d.slice\"]\n", g, g)
	}
	for v := range vips {
		addr := vipAddr
		if v > 0 {
			addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 97, byte(v >> 8), byte(v)}), vipAddr.Port())
		}
		fmt.Fprintf(&toml, "[vip.v%d]\nfrontends = [\"%s\", \"%s/udp\"]\n", v, addr, addr)
		for b := range backends {
			backend := backendAddr
			if b > 0 && v > 0 {
				backend = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(b), byte(v >> 8), byte(v)}), 7001)
			} else if b > 0 {
				continue // every connect must reach the one listener
			}
			fmt.Fprintf(&toml, "[[vip.v%d.backend]]\naddress = \"%s\"\n", v, backend)
		}
	}
	return parse(toml.String(), cgroup)
}

// parse is compile for what is written already.
func parse(toml string, cgroup uint64) (*controlPlane, error) {
	cfg, err := config.Parse("bench.toml", []byte(toml))
	if err != nil {
		return nil, err
	}
	var specs []anchor.Group
	for _, g := range cfg.Groups {
		spec := anchor.Group{Name: g.Name, Split: g.Split}
		for _, a := range g.Anchors {
			spec.Patterns = append(spec.Patterns, a.Pattern)
		}
		specs = append(specs, spec)
	}
	tree, err := anchor.Compile(specs)
	if err != nil {
		return nil, err
	}
	c := &controlPlane{cfg: cfg, tree: tree, member: lb.Membership{Complete: true}}
	if m, ok := tree.Child(tree.Root().Node, "g0.slice"); ok && cgroup != 0 {
		c.member.Cgroups = []lb.Member{{ID: cgroup, Match: &m, Group: "g0"}}
	}
	return c, nil
}

func (c *controlPlane) state() (*lb.State, error) {
	return lb.Compile(c.cfg, c.tree, c.member, lb.Runtime{})
}

// attachSlicelb attaches the real data plane, filled by the real control plane,
// without the programs that are named.
func (v *variant) attachSlicelb(vips, backends, groups int, without ...string) error {
	d, err := v.attachPlane(vips, backends, groups)
	if err != nil {
		return err
	}
	for _, program := range without {
		if err := detach(d, program); err != nil {
			return fmt.Errorf("detach %s: %w", program, err)
		}
	}
	return nil
}

// attachChoosing attaches one VIP of ten backends, all of which are the worker's
// listener, that chooses as these keys say.
func (v *variant) attachChoosing(keys string) error {
	toml := fmt.Sprintf("[group.g0]\nslices = [\"g0.slice\"]\n[vip.v0]\nfrontends = [\"%s\", \"%s/udp\"]\n%s\n", vipAddr, vipAddr, keys)
	for b := range 10 {
		toml += fmt.Sprintf("[[vip.v0.backend]]\naddress = \"127.0.0.%d:%d\"\n", b+2, backendAddr.Port())
	}
	_, err := v.attach(func(cgroup uint64) (*controlPlane, error) { return parse(toml, cgroup) })
	return err
}

// attachRuled attaches one VIP and group under a policy, as TOML.
func (v *variant) attachRuled(rules string) error {
	toml := fmt.Sprintf("[group.g0]\nslices = [\"g0.slice\"]\n[vip.v0]\nfrontends = [\"%s\", \"%s/udp\"]\n[[vip.v0.backend]]\naddress = \"%s\"\n", vipAddr, vipAddr, backendAddr)
	_, err := v.attach(func(cgroup uint64) (*controlPlane, error) { return parse(toml+rules, cgroup) })
	return err
}

func (v *variant) attachPlane(vips, backends, groups int) (*bpf.Datapath, error) {
	return v.attach(func(cgroup uint64) (*controlPlane, error) { return compile(vips, backends, groups, cgroup) })
}

func (v *variant) attach(plane func(cgroup uint64) (*controlPlane, error)) (*bpf.Datapath, error) {
	d, err := bpf.New(bpf.Options{Edit: v.edit})
	if err != nil {
		return nil, err
	}
	v.undo = append(v.undo, d.Close)
	fi, err := os.Stat(v.scope())
	if err != nil {
		return nil, err
	}
	c, err := plane(fi.Sys().(*syscall.Stat_t).Ino)
	if err != nil {
		return nil, err
	}
	state, err := c.state()
	if err != nil {
		return nil, err
	}
	err = withReconciler(d, func(r *lb.Reconciler) error {
		_, err := r.Reconcile(context.Background(), state)
		return err
	})
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(v.cgroup)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return d, d.Attach(dir)
}

// detach shows what a program costs by its absence.
func detach(d *bpf.Datapath, program string) error {
	for _, f := range d.FDs() {
		if !strings.Contains(f.Name, "-link-"+program+"-") {
			continue
		}
		fd, err := syscall.Dup(f.FD)
		if err != nil {
			return err
		}
		l, err := link.NewFromFD(fd)
		if err != nil {
			return err
		}
		return errors.Join(l.Detach(), l.Close())
	}
	return errors.New("no such link")
}

// withReconciler runs a reconciler for as long as use takes.
func withReconciler(d *bpf.Datapath, use func(*lb.Reconciler) error) error {
	r := lb.NewReconciler(d, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	err := use(r)
	stop()
	if end := <-ended; end != nil && !errors.Is(end, context.Canceled) {
		err = errors.Join(err, end)
	}
	return err
}
