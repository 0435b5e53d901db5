package daemon

import (
	"testing"

	"github.com/slicelb/slicelb/api"
)

// A daemon that stops calls no order done that it has not carried out.
func TestStopAnswersOpenOrders(t *testing.T) {
	waits := &backendChange{state: api.OrderDrain, done: make(chan backendChanged, 1)}
	carried := &backendChange{state: api.OrderReady, done: make(chan backendChanged, 1), answer: &api.BackendChanged{Writes: 1}}
	b := newBackendStates()
	b.open = []*backendChange{waits, carried}
	b.giveUp()
	if out := <-waits.done; out.err == nil || out.answer != nil {
		t.Errorf("not carried out: %+v", out)
	}
	if out := <-carried.done; out.err != nil || out.answer != carried.answer {
		t.Errorf("carried out: %+v", out)
	}
}
