package lb

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/slicelb/slicelb/config"
)

// drawVerdicts is nil for most worlds: nothing is known against any backend.
func drawVerdicts(t *rapid.T, cfg *config.Config) map[Endpoint]Verdict {
	if rapid.IntRange(0, 2).Draw(t, "verdicts") > 0 {
		return nil
	}
	out := map[Endpoint]Verdict{}
	for _, v := range cfg.VIPs {
		for _, b := range v.Backends {
			switch rapid.IntRange(0, 4).Draw(t, "verdict") {
			case 0:
				out[Endpoint{v.Name, b.Addr}] = Verdict{Drain: true}
			case 1:
				out[Endpoint{v.Name, b.Addr}] = Verdict{Down: true}
			case 2:
				out[Endpoint{v.Name, b.Addr}] = Verdict{Failing: true}
			}
		}
	}
	return out
}

// Other verdicts for the same configuration give what compiling again gives, and
// share what is not judged otherwise.
func TestWithVerdicts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		state := w.state(t)
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			before, verdicts := state, drawVerdicts(t, w.cfg)
			var err error
			if state, err = state.WithVerdicts(verdicts); err != nil {
				t.Fatal(err)
			}
			again := *w
			again.rt.Verdicts = verdicts
			if diff := cmp.Diff(again.state(t), state, cmp.Exporter(func(reflect.Type) bool { return true }), cmpopts.IgnoreFields(State{}, "cfg", "Policy"), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Fatalf("compiled again (-), with other verdicts (+):\n%s", diff)
			}
			for i, v := range state.VIPs {
				was := maps.Collect(judging(before, v.Name))
				if same := maps.Equal(was, maps.Collect(judging(state, v.Name))); same != (v == before.VIPs[i]) {
					t.Fatalf("%s: judged as before %t, shared %t", v.Name, same, v == before.VIPs[i])
				}
			}
		}
	})
}

// Other backends for some VIPs give what compiling again gives.
func TestWithBackends(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		state, changed := w.state(t), map[string]bool{}
		cfg := *w.cfg
		cfg.VIPs = slices.Clone(cfg.VIPs)
		for i := range cfg.VIPs {
			v := &cfg.VIPs[i]
			if n := rapid.IntRange(0, len(v.Backends)).Draw(t, "backends"); n < len(v.Backends) {
				v.Backends, changed[v.Name] = v.Backends[:n], true
			}
		}
		got, err := state.WithBackends(&cfg, changed)
		if err != nil {
			t.Fatal(err)
		}
		again := *w
		again.cfg = &cfg
		if diff := cmp.Diff(again.state(t), got, cmp.Exporter(func(reflect.Type) bool { return true }), cmpopts.IgnoreFields(State{}, "cfg"), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Fatalf("compiled again (-), with other backends (+):\n%s", diff)
		}
	})
}

// Every backend of a VIP is found, of either family, and nobody else's.
func TestHas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		s, want := w.state(t), map[Endpoint]bool{}
		for _, v := range s.VIPs {
			for _, b := range v.Backends {
				want[Endpoint{v.Name, b.Addr}] = true
			}
		}
		for e := range want {
			for _, v := range append(slices.Clone(s.VIPs), &VIP{Name: "zz"}, &VIP{Name: ""}) {
				if at := (Endpoint{v.Name, e.Addr}); s.Has(at) != want[at] {
					t.Fatalf("%v: %t", at, !want[at])
				}
			}
		}
	})
}

func judging(s *State, vip string) func(yield func(Endpoint, Verdict) bool) {
	return func(yield func(Endpoint, Verdict) bool) {
		for e, v := range s.verdicts {
			if e.VIP == vip && !yield(e, v) {
				return
			}
		}
	}
}

// BenchmarkWithVerdicts is one backend of 100,000 that fails and recovers.
func BenchmarkWithVerdicts(b *testing.B) {
	cfg := big(10000, 1000)
	e := Endpoint{cfg.VIPs[5000].Name, cfg.VIPs[5000].Backends[3].Addr}
	state := compile(b, cfg)
	for i := 0; b.Loop(); i++ {
		verdicts := map[Endpoint]Verdict{}
		if i%2 == 0 {
			verdicts[e] = Verdict{Failing: true}
		}
		var err error
		if state, err = state.WithVerdicts(verdicts); err != nil {
			b.Fatal(err)
		}
	}
}
