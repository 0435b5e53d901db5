package bpf

import (
	"cmp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// storedSet is one data plane as a store handed it back.
type storedSet struct {
	layout, name string
	fds          map[string][]storedFD // "map cells" -> newest id first
}

type storedFD struct {
	name storedName
	fd   int
}

// storedSets sorts what is ours into sets, the newest first, and closes the rest.
func storedSets(fds []NamedFD) []*storedSet {
	byName := make(map[string]*storedSet)
	for _, f := range fds {
		n, ok := parseStoredName(f.Name)
		if !ok {
			unix.Close(f.FD)
			continue
		}
		key := n.layout + "-" + n.set
		s := byName[key]
		if s == nil {
			s = &storedSet{layout: n.layout, name: n.set, fds: make(map[string][]storedFD)}
			byName[key] = s
		}
		object := n.kind + " " + n.object
		s.fds[object] = append(s.fds[object], storedFD{n, f.FD})
	}
	var sets []*storedSet
	for _, s := range byName {
		for _, same := range s.fds {
			slices.SortFunc(same, func(a, b storedFD) int { return cmp.Compare(b.name.id, a.name.id) })
		}
		sets = append(sets, s)
	}
	slices.SortFunc(sets, func(a, b *storedSet) int { return strings.Compare(b.name, a.name) })
	return sets
}

// take hands out the newest descriptor of an object; the caller owns it then.
func (s *storedSet) take(kind, object string) (int, bool) {
	key := kind + " " + object
	if len(s.fds[key]) == 0 {
		return -1, false
	}
	fd := s.fds[key][0].fd
	s.fds[key] = s.fds[key][1:]
	return fd, true
}

// linked says whether the set has programs run.
func (s *storedSet) linked() bool {
	for object := range s.fds {
		if strings.HasPrefix(object, kindLink+" ") {
			return true
		}
	}
	return false
}

// close gives back what was not taken.
func (s *storedSet) close() {
	for object, same := range s.fds {
		for _, f := range same {
			unix.Close(f.fd)
		}
		delete(s.fds, object)
	}
}

func (s *storedSet) error(object, reason string, err error) error {
	return &AdoptError{Set: s.name, Object: object, Reason: reason, Err: err}
}
