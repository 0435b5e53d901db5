package lb

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSpaceFitsBest(t *testing.T) {
	s := newSpace(100, []span{{0, 1}, {10, 5}, {20, 30}, {60, 10}})
	want := []span{{1, 9}, {15, 5}, {50, 10}, {70, 30}}
	if diff := cmp.Diff(want, s.free, cmp.AllowUnexported(span{})); diff != "" {
		t.Fatalf("free (-want +got):\n%s", diff)
	}
	for _, c := range []struct{ n, base uint32 }{{5, 15}, {10, 50}, {9, 1}, {30, 70}} {
		if base, ok := s.fit(c.n); !ok || base != c.base {
			t.Errorf("fit(%d) = %d, %t, want %d", c.n, base, ok, c.base)
		}
	}
	if base, ok := s.fit(1); ok {
		t.Errorf("full, and still %d", base)
	}
}

// A space behaves as the set of indexes that it stands for; its spans stay
// sorted, apart and not empty.
func TestSpaceIsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 40
		s := newSpace(limit, nil)
		free := [limit]bool{}
		for i := range free {
			free[i] = true
		}
		all := func(base, n uint32, is bool) bool {
			for i := base; i < base+n; i++ {
				if i >= limit || free[i] != is {
					return false
				}
			}
			return true
		}
		mark := func(base, n uint32, is bool) {
			for i := base; i < base+n; i++ {
				free[i] = is
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"fit": func(t *rapid.T) {
				n := rapid.Uint32Range(1, 8).Draw(t, "n")
				base, ok := s.fit(n)
				if ok && !all(base, n, true) {
					t.Fatalf("fit(%d) = %d is not free", n, base)
				}
				if !ok {
					for b := range uint32(limit) {
						if all(b, n, true) {
							t.Fatalf("fit(%d) found nothing, but %d is free", n, b)
						}
					}
					return
				}
				mark(base, n, false)
			},
			"first": func(t *rapid.T) {
				base, ok := s.first()
				for b := range uint32(limit) {
					if free[b] {
						if !ok || base != b {
							t.Fatalf("first() = %d, %t, want %d", base, ok, b)
						}
						free[b] = false
						return
					}
				}
				if ok {
					t.Fatalf("first() = %d of nothing", base)
				}
			},
			"take": func(t *rapid.T) {
				base, n := rapid.Uint32Range(0, limit-1).Draw(t, "base"), rapid.Uint32Range(1, 8).Draw(t, "n")
				want := all(base, n, true)
				if got := s.take(base, n); got != want {
					t.Fatalf("take(%d, %d) = %t", base, n, got)
				}
				if want {
					mark(base, n, false)
				}
			},
			"give": func(t *rapid.T) {
				base, n := rapid.Uint32Range(0, limit-1).Draw(t, "base"), rapid.Uint32Range(1, 8).Draw(t, "n")
				if base+n > limit {
					return
				}
				want := all(base, n, false)
				if got := s.give(base, n); got != want {
					t.Fatalf("give(%d, %d) = %t", base, n, got)
				}
				if want {
					mark(base, n, true)
				}
			},
			"": func(t *rapid.T) {
				var n uint32
				end := uint32(0)
				for i, f := range s.free {
					if f.n == 0 || i > 0 && f.base <= end || !all(f.base, f.n, true) {
						t.Fatalf("spans %v", s.free)
					}
					end, n = f.base+f.n, n+f.n
				}
				for _, is := range free {
					if is {
						n--
					}
				}
				if n != 0 {
					t.Fatalf("spans %v are not what is free", s.free)
				}
			},
		})
	})
}
