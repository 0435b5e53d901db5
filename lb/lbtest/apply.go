package lbtest

import (
	"errors"
	"fmt"

	"github.com/slicelb/slicelb/bpf"
)

// ErrUnsafe is returned by Apply for a write that a running program could see
// half done: its target is named, or was named since the last barrier.
var ErrUnsafe = errors.New("unsafe write")

// Apply does one write.
func (m *Maps) Apply(w bpf.Write) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.apply(w); err != nil {
		return fmt.Errorf("%s: %w", w, err)
	}
	m.writes++
	return nil
}

func (m *Maps) apply(w bpf.Write) error {
	d := &m.d
	switch w := w.(type) {
	case bpf.PutFrontend:
		return m.putFrontend(w)
	case bpf.DelFrontend:
		return m.delFrontend(w)
	case bpf.SetFrontendRef:
		return m.setFrontendRef(w)
	case bpf.SetCell:
		return m.setCell(w)
	case bpf.SetCellInfo:
		return m.setCellInfo(w)
	case bpf.PutView:
		return m.putView(w)
	case bpf.DelView:
		return m.delView(w)
	case bpf.SetSlots:
		return m.setSlots(w)
	case bpf.SetBackend:
		return m.setBackend(w)
	case bpf.SetBackendCell:
		return m.setBackendCell(w)
	case bpf.SetGroup:
		return m.setGroup(w)
	case bpf.SetPolicyTable:
		return m.setPolicyTable(w)
	case bpf.SetPolicy:
		return m.setPolicy(w)
	case bpf.PutCgroup:
		if err := m.rule(w.Rule); err != nil {
			return err
		}
		m.callers[w.Rule.Group] = true
		return put(d.Cgroups, "cgroups", m.limits.Cgroups, w.ID, w.Rule)
	case bpf.SetCgroup:
		if err := m.rule(w.Rule); err != nil {
			return err
		}
		m.callers[w.Rule.Group] = true
		return set(d.Cgroups, w.ID, func(r *bpf.Rule) { *r = w.Rule })
	case bpf.DelCgroup:
		delete(d.Cgroups, w.ID)
	case bpf.PutExpect:
		if err := m.rule(w.Rule); err != nil {
			return err
		}
		return put(d.Expect, "expect", m.limits.Expect, w.Key, w.Rule)
	case bpf.SetExpect:
		if err := m.rule(w.Rule); err != nil {
			return err
		}
		return set(d.Expect, w.Key, func(r *bpf.Rule) { *r = w.Rule })
	case bpf.DelExpect:
		delete(d.Expect, w.Key)
	case bpf.PutPattern:
		if err := m.rule(w.Pattern.Rule); err != nil {
			return err
		}
		return put(d.Patterns, "expect_patterns", m.limits.Expect, w.Key, w.Pattern)
	case bpf.SetPattern:
		if err := m.rule(w.Rule); err != nil {
			return err
		}
		return set(d.Patterns, w.Key, func(p *bpf.Pattern) { p.Rule = w.Rule })
	case bpf.DelPattern:
		delete(d.Patterns, w.Key)
	default:
		return fmt.Errorf("unknown write %T", w)
	}
	return nil
}

// rule checks that what a rule names is there.
func (m *Maps) rule(r bpf.Rule) error {
	if r.Group != 0 && m.d.Groups[r.Group].Name == "" {
		return unsafe("group %d has no name", r.Group)
	}
	m.groups[r.Group] = true
	return nil
}

func unsafe(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnsafe}, args...)...)
}

func within(table string, index, limit uint32) error {
	if index >= limit {
		return fmt.Errorf("%s: index %d of %d", table, index, limit)
	}
	return nil
}

func put[K comparable, V any](m map[K]V, table string, limit uint32, k K, v V) error {
	if _, ok := m[k]; ok {
		return bpf.ErrExist
	}
	if len(m) >= int(limit) {
		return &bpf.FullError{Table: table, Limit: limit, Key: fmt.Sprint(k)}
	}
	m[k] = v
	return nil
}

func set[K comparable, V any](m map[K]V, k K, change func(*V)) error {
	v, ok := m[k]
	if !ok {
		return bpf.ErrNotExist
	}
	change(&v)
	m[k] = v
	return nil
}
