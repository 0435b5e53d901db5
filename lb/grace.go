package lb

import "fmt"

// grace is a barrier on its way and what may be freed when it has passed.
type grace struct {
	done   chan error
	covers map[string]bool // of Plan.After, by text: garbage since before the barrier began
	limbo  int             // so many of Have.limbo
}

// collect looks for what can be freed and sets a barrier on its way for it.
func (r *Reconciler) collect() {
	if r.grace != nil || r.have == nil || r.want == nil || !r.dirty || r.paused {
		return
	}
	plan, err := Diff(r.have, r.want)
	if err != nil {
		r.failed(err)
		return
	}
	if len(plan.Writes) > 0 {
		if _, err := r.write(plan, r.want); err != nil {
			r.failed(err)
			return
		}
		if plan, err = Diff(r.have, r.want); err != nil {
			r.failed(err)
			return
		}
	}
	r.have.settle(plan, r.want)
	if len(plan.After) == 0 && len(r.have.limbo) == 0 {
		r.dirty = false
		return
	}
	g := &grace{done: make(chan error, 1), covers: map[string]bool{}, limbo: len(r.have.limbo)}
	for _, w := range plan.After {
		g.covers[w.String()] = true
	}
	r.grace = g
	go func() { g.done <- r.dp.Barrier() }()
}

// keep takes from what a barrier on its way covers whatever the plan uses again.
func (r *Reconciler) keep(plan Plan) {
	if r.grace == nil || len(r.grace.covers) == 0 {
		return
	}
	still := make(map[string]bool, len(r.grace.covers))
	for _, w := range plan.After {
		if s := w.String(); r.grace.covers[s] {
			still[s] = true
		}
	}
	r.grace.covers = still
}

// passed frees what the barrier covers and is still unused.
func (r *Reconciler) passed(err error) {
	g := r.grace
	r.grace = nil
	if err != nil {
		r.failed(fmt.Errorf("barrier: %w", err))
		return
	}
	r.count(func(s *Stats) { s.Barriers++ })
	if r.have == nil {
		return
	}
	r.have.release(g.limbo)
	if err := r.free(g); err != nil {
		r.failed(err)
	}
}

func (r *Reconciler) free(g *grace) error {
	if len(g.covers) == 0 {
		return nil
	}
	// The kernel copies groups and nodes from expect into cgroups, at any time
	// until this barrier.
	if err := r.refresh(); err != nil {
		r.lose()
		return err
	}
	plan, err := Diff(r.have, r.want)
	if err != nil {
		return err
	}
	for _, w := range plan.After {
		if !g.covers[w.String()] {
			continue
		}
		if err := r.apply(w); err != nil {
			r.lose()
			return fmt.Errorf("free: %w", err)
		}
	}
	return nil
}

// drain frees all that can be, waiting for barriers; it reports whether there
// was anything.
func (r *Reconciler) drain() bool {
	freed := false
	r.dirty = r.want != nil
	for r.have != nil {
		r.collect()
		if r.grace == nil {
			break
		}
		freed = true
		if err := <-r.grace.done; err != nil {
			r.passed(err)
			break
		}
		r.passed(nil)
	}
	return freed && r.have != nil
}
