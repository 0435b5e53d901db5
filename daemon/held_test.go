package daemon

import (
	"errors"
	"testing"

	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// An alarm is for descriptors that are missing, not for a count that has not come
// yet, or is of before the newest was sent.
func TestCountOnItsWayIsNoAlarm(t *testing.T) {
	m := fdstoretest.New(t)
	d := bare(t, m, newMemoryPath(lbtest.DefaultLimits))
	d.running, d.ready, d.attached = sourceOf(t, oneVIP), true, true
	if err := d.remember(); err != nil {
		t.Fatal(err)
	}
	defer func() { d.state.Close() }()
	alarm := func(when string, want bool) {
		t.Helper()
		if d.publish(); want == d.held().Store || (len(d.view.Load().problems) > 0) != want {
			t.Errorf("%s: %+v, problems %q", when, d.held(), d.view.Load().problems)
		}
	}
	d.lockHeld = true
	answer := func() fdstore.Count { return d.kept.counter.Count(t.Context()) }

	d.keep(t.Context(), false)
	alarm("nobody has counted yet", false)
	d.count(t.Context(), answer())
	alarm("all are there", false)

	before := answer()
	d.backends.unsaved = true
	d.saveStates(0)
	defer func() { d.backends.stateFile.Close() }()
	alarm("one more was sent", false)
	if !d.kept.counter.Poked() {
		t.Error("nobody asks again")
	}
	d.count(t.Context(), before)
	alarm("an answer of before that", false)
	d.count(t.Context(), answer())
	alarm("all are there again", false)

	// What is missing is missing, also while a refill is on its way.
	m.Drop()
	m.Limit(1)
	d.count(t.Context(), answer())
	alarm("the store lost all", true)
	d.count(t.Context(), answer())
	alarm("it has room for one", true)
	m.Limit(8)
	for range 2 { // its new limit, and what it holds then
		d.count(t.Context(), answer())
	}
	alarm("it holds all again", false)

	// Who cannot be asked, raises none either.
	m.Away(errors.New("no bus"))
	d.count(t.Context(), answer())
	alarm("no bus", false)
}
