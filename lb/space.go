package lb

import "slices"

// span is a run of free indexes.
type span struct{ base, n uint32 }

// space is the free part of an array: spans by base, never adjacent. Where
// something is put depends on nothing but what is free.
type space struct{ free []span }

// newSpace is [0, limit) without what used names, which must be sorted.
func newSpace(limit uint32, used []span) *space {
	s := &space{}
	next := uint32(0)
	for _, u := range used {
		if u.base > next {
			s.free = append(s.free, span{next, min(u.base, limit) - next})
		}
		next = max(next, u.base+u.n)
		if next >= limit {
			return s
		}
	}
	if next < limit {
		s.free = append(s.free, span{next, limit - next})
	}
	return s
}

func (s *space) clone() *space { return &space{free: slices.Clone(s.free)} }

// first takes the lowest index.
func (s *space) first() (uint32, bool) {
	if len(s.free) == 0 {
		return 0, false
	}
	base := s.free[0].base
	s.cut(0, 0, 1)
	return base, true
}

// fit takes n indexes in a row from the smallest span that holds them, the
// lowest of equals.
func (s *space) fit(n uint32) (uint32, bool) {
	best := -1
	for i, f := range s.free {
		if f.n < n || best >= 0 && f.n >= s.free[best].n {
			continue
		}
		best = i
		if f.n == n {
			break
		}
	}
	if best < 0 {
		return 0, false
	}
	base := s.free[best].base
	s.cut(best, 0, n)
	return base, true
}

// take makes [base, base+n) used; it reports whether all of it was free.
func (s *space) take(base, n uint32) bool {
	i := s.after(base) - 1
	if i < 0 || base-s.free[i].base+n > s.free[i].n {
		return false
	}
	s.cut(i, base-s.free[i].base, n)
	return true
}

// give makes [base, base+n) free; it reports whether all of it was used.
func (s *space) give(base, n uint32) bool {
	i := s.after(base)
	left := i > 0 && s.free[i-1].base+s.free[i-1].n >= base
	right := i < len(s.free) && base+n >= s.free[i].base
	switch {
	case left && s.free[i-1].base+s.free[i-1].n > base,
		right && base+n > s.free[i].base:
		return false
	case left && right:
		s.free[i-1].n += n + s.free[i].n
		s.free = slices.Delete(s.free, i, i+1)
	case left:
		s.free[i-1].n += n
	case right:
		s.free[i].base = base
		s.free[i].n += n
	default:
		s.free = slices.Insert(s.free, i, span{base, n})
	}
	return true
}

// room is how many indexes are free.
func (s *space) room() uint32 {
	var n uint32
	for _, f := range s.free {
		n += f.n
	}
	return n
}

// after is the position of the first span whose base is greater.
func (s *space) after(base uint32) int {
	lo, hi := 0, len(s.free)
	for lo < hi {
		mid := (lo + hi) / 2
		if s.free[mid].base <= base {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// cut takes n indexes at offset off of span i.
func (s *space) cut(i int, off, n uint32) {
	f := s.free[i]
	rest := span{f.base + off + n, f.n - off - n}
	switch {
	case off == 0 && rest.n == 0:
		s.free = slices.Delete(s.free, i, i+1)
	case off == 0:
		s.free[i] = rest
	case rest.n == 0:
		s.free[i].n = off
	default:
		s.free[i].n = off
		s.free = slices.Insert(s.free, i+1, rest)
	}
}
