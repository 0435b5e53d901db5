package unitwatch

import "time"

// attempt is something to try again.
type attempt struct {
	parent uint64    // of wanted
	hinted time.Time // of wanted: when the event happened
	tries  int
	at     time.Time
}

// orphan remembers a hint whose parent is not known. Most such parents do not
// matter; one that is just being found does, as the listing that finds it may
// be too early for this child. So the latest are kept.
func (v *watch) orphan(hint Hint) {
	if len(v.orphans) >= maxPending {
		v.orphans, v.older = v.older, v.orphans
		clear(v.orphans)
	}
	v.orphans[hint.Parent] = hint.ID
}

// want has a directory looked for until it is seen: its event may have been
// faster than its name. It may also be gone again, so the tries end.
func (v *watch) want(id, parent uint64, hinted time.Time) {
	if len(v.wanted) >= maxPending {
		v.trail(trailGap)
		return
	}
	v.wanted[id] = &attempt{parent: parent, hinted: hinted}
	v.retry(v.wanted[id])
}

// unname has systemd's mark read again.
func (v *watch) unname(d *dir) {
	if len(v.unnamed) < maxPending {
		v.unnamed[d] = &attempt{}
		v.retry(v.unnamed[d])
	}
}

// readMarks reads some of the marks that a walk has left. First of all everything
// is to be in the kernel that decides who is in which group.
func (v *watch) readMarks() {
	begun := time.Now()
	if !v.walked || v.unsent() {
		v.nextRead = begun.Add(marksGap)
		return
	}
	read, lost := v.h.readMarks(marksBatch)
	for _, d := range read {
		if d.marked {
			v.enquire(d)
		}
	}
	for _, d := range lost {
		v.mark(d)
	}
	v.nextRead = time.Now().Add(gap(marksGap, time.Since(begun)))
}

// recheck has a new directory looked at again. The kernel hints at what is made in
// it only when it has an entry, and where the kernel could not make that by itself
// it comes with a snapshot of ours.
func (v *watch) recheck(d *dir) {
	if v.w.options.Hints != nil && v.walked && len(v.fresh) < maxPending {
		v.fresh[d] = &attempt{}
		v.retry(v.fresh[d])
	}
}

// retry plans the next try; false if there were enough.
func (v *watch) retry(a *attempt) bool {
	if a.tries == retries {
		return false
	}
	wait := firstRetry
	for range a.tries {
		wait *= retryScale
	}
	a.tries++
	a.at = time.Now().Add(wait)
	if v.nextAgain.IsZero() || a.at.Before(v.nextAgain) {
		v.nextAgain = a.at
	}
	return true
}

// again tries what is due.
func (v *watch) again(now time.Time) {
	v.nextAgain = time.Time{}
	again := func(a *attempt) (due bool) {
		if now.Before(a.at) {
			if v.nextAgain.IsZero() || a.at.Before(v.nextAgain) {
				v.nextAgain = a.at
			}
			return false
		}
		return true
	}
	for id, a := range v.wanted {
		if !again(a) {
			continue
		}
		parent := v.h.byID[a.parent]
		if parent == nil || !v.retry(a) {
			delete(v.wanted, id)
		}
		if parent != nil {
			v.mark(parent)
		}
	}
	for d, a := range v.fresh {
		if !again(a) {
			continue
		}
		v.mark(d)
		if !v.retry(a) {
			delete(v.fresh, d)
		}
	}
	for d, a := range v.unnamed {
		if !again(a) {
			continue
		}
		if !v.h.rename(d) {
			v.mark(d.parent) // its end was not hinted
		}
		switch {
		case v.h.byID[d.id] != d:
			delete(v.unnamed, d)
		case d.about.invoked() != "" || !v.retry(a):
			delete(v.unnamed, d)
			v.enquire(d)
		}
	}
}
