package lb

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// big is 10,000 VIPs of 10 backends, and 1,000 groups, each client of ten VIPs.
func big(vips, groups int) *config.Config {
	cfg := &config.Config{}
	for i := range groups {
		cfg.Groups = append(cfg.Groups, config.Group{Name: fmt.Sprintf("group-%d", i), Translate: true})
	}
	for i := range vips {
		v := config.VIP{Name: fmt.Sprintf("vip-%d", i), WhenDown: config.DownReject}
		v.Frontends = []config.Frontend{{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80), Proto: config.TCP}}
		for b := range 10 {
			v.Backends = append(v.Backends, config.Backend{
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 16 + byte(b), byte(i >> 8), byte(i)}), 80), Weight: 1})
		}
		if groups > 0 {
			v.Clients = []string{cfg.Groups[i%groups].Name}
		}
		cfg.VIPs = append(cfg.VIPs, v)
	}
	return cfg
}

// sink takes writes and keeps nothing.
type sink struct{ limits bpf.Limits }

func (sink) Dump() (*bpf.Dump, error)              { return &bpf.Dump{}, nil }
func (sink) Cgroups() (map[uint64]bpf.Rule, error) { return nil, nil }
func (sink) Apply(bpf.Write) error                 { return nil }
func (sink) Barrier() error                        { return nil }
func (s sink) Limits() bpf.Limits                  { return s.limits }

func BenchmarkCompile(b *testing.B) {
	cfg := big(10000, 1000)
	for b.Loop() {
		if _, err := Compile(cfg, nil, Membership{Complete: true}, Runtime{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDiffFromNothing is the first Diff of a start.
func BenchmarkDiffFromNothing(b *testing.B) {
	want := compile(b, big(10000, 1000))
	for b.Loop() {
		plan, err := Diff(NewHave(&bpf.Dump{}, lbtest.DefaultLimits, time.Now()), want)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(plan.Writes)), "writes")
	}
}

// BenchmarkFromNothing is a start without the kernel's part.
func BenchmarkFromNothing(b *testing.B) {
	cfg := big(10000, 1000)
	for b.Loop() {
		r := run(b, sink{lbtest.DefaultLimits})
		if _, err := r.Reconcile(b.Context(), compile(b, cfg)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOneBackend is one changed backend among 10,000 VIPs, from the
// reconciler's having the state to its last write, without the kernel's part.
func BenchmarkOneBackend(b *testing.B) {
	cfg := big(10000, 1000)
	states := make([]*State, 2)
	for i := range states {
		cfg.VIPs[5000].Backends[3].Weight = uint32(1 + i)
		states[i] = compile(b, cfg)
	}
	r := run(b, sink{lbtest.DefaultLimits})
	if _, err := r.Reconcile(b.Context(), states[0]); err != nil {
		b.Fatal(err)
	}
	if err := r.Settle(b.Context()); err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		i++
		result, err := r.Reconcile(b.Context(), states[i%2])
		if err != nil || result.Writes == 0 {
			b.Fatal(result, err)
		}
	}
}

// BenchmarkRestart is reading a dump and finding that it is as wanted.
func BenchmarkRestart(b *testing.B) {
	m := lbtest.New(lbtest.DefaultLimits)
	want := compile(b, big(10000, 1000))
	plan, err := Diff(NewHave(&bpf.Dump{}, m.Limits(), time.Now()), want)
	if err != nil {
		b.Fatal(err)
	}
	for _, w := range plan.Writes {
		if err := m.Apply(w); err != nil {
			b.Fatal(err)
		}
	}
	dump, _ := m.Dump()
	for b.Loop() {
		d := *dump
		plan, err := Diff(NewHave(&d, m.Limits(), time.Now()), want)
		if err != nil || len(plan.Writes) > 0 {
			b.Fatal(plan.Writes, err)
		}
	}
}
