package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// beside calls f again and again, while do runs, and returns how often.
func beside(do func(), f func()) (n int) {
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		defer done.Store(true)
		do()
	})
	for ; !done.Load(); n++ {
		f()
	}
	wg.Wait()
	return n
}

// What is written plainly is read under the lock. The race detector does not see
// memory that is shared with the kernel, so here the tables are Go's own.
func TestKernelNamesAreReadUnderTheLock(t *testing.T) {
	p := newPlane(t, small)
	p.cellInfos = make([]slicelbSlbCellInfo, len(p.cellInfos))
	p.groupInfos = make([]slicelbSlbGroupInfo, len(p.groupInfos))
	p.backends = make([]slicelbSlbBackend, len(p.backends))
	backend := Backend{Addr: netip.MustParseAddrPort("192.0.2.1:80"), Cell: 1}
	beside(func() {
		for range 30 {
			_, _ = p.VIPName(1), p.GroupName(1)
			_, _ = p.GroupIndex("g")
			p.VIPCells("v")
			p.Latencies()
			_, liveErr := p.Live()
			_, ofErr := p.LiveOf(1)
			_, countErr := p.Counters()
			_, dumpErr := p.Dump()
			if err := errors.Join(liveErr, ofErr, countErr, dumpErr); err != nil {
				t.Error(err)
			}
		}
	}, func() {
		backend.Gen++
		p.apply(
			SetCellInfo{1, CellInfo{VIP: fmt.Sprint("v", backend.Gen), Family: 4}}, SetGroup{1, Group{Name: fmt.Sprint("g", backend.Gen)}},
			SetBackend{1, backend}, SetBackendCell{1, BackendCell{BackendActive, backend.Gen}},
			SetBackendCell{1, BackendCell{BackendFree, backend.Gen}},
		)
	})
}

// A dump is what the maps held between two writes, whatever is written meanwhile.
func TestKernelDumpLiesBetweenWrites(t *testing.T) {
	p := newPlane(t, small)
	for i := range uint32(500) {
		p.apply(PutFrontend{frontendKey(fmt.Sprintf("10.97.%d.%d:80", i>>8, i&255)), 2})
	}
	p.apply(SetFrontendRef{2, FrontendRef{Cell: 1, Gen: 1}})
	key := frontendKey("10.96.0.10:80")
	n := beside(func() {
		for gen := range uint32(3000) {
			p.apply(
				SetFrontendRef{1, FrontendRef{Cell: 1, Gen: gen}}, PutFrontend{key, 1},
				PutExpect{ExpectKey{1, "a"}, Rule{Node: 2}}, SetExpect{ExpectKey{1, "a"}, Rule{Group: 1}},
				PutPattern{PatternKey{1, 0}, Pattern{"a", "b", Rule{Node: 2}}}, SetPattern{PatternKey{1, 0}, Rule{Group: 1}},
				DelExpect{ExpectKey{1, "a"}}, DelPattern{PatternKey{1, 0}},
				DelFrontend{key}, SetFrontendRef{1, FrontendRef{Gen: gen}},
			)
		}
	}, func() {
		d, err := p.Dump()
		if err != nil {
			t.Error(err)
			return
		}
		_, frontend := d.Frontends[key]
		_, name := d.Expect[ExpectKey{1, "a"}]
		pattern := d.Patterns[PatternKey{1, 0}]
		switch {
		case frontend && d.FrontendRefs[1].Cell == 0:
			t.Error("a frontend whose word is not there")
		case (name || pattern != Pattern{}) && !frontend:
			t.Error("an edge that is there with the frontend alone")
		case pattern != Pattern{} && (pattern.Prefix != "a" || pattern.Suffix != "b"):
			t.Errorf("pattern %s", pattern)
		}
		if len(d.Frontends) < 500 {
			t.Errorf("%d frontends", len(d.Frontends))
		}
	})
	if len(p.followed) > 0 {
		t.Errorf("%d dumps are followed that have ended", len(p.followed))
	}
	t.Logf("%d dumps", n)
}

// Who polls does not hold up who writes: a write that begins when a dump does takes
// a small part of its time.
func TestKernelReadersDoNotHoldWritesUp(t *testing.T) {
	p := newPlane(t, Options{Slots: 1 << 16})
	for i := range uint32(8000) {
		p.apply(PutExpect{ExpectKey{i + 1, "a.slice"}, Rule{Node: 1}}, PutPattern{PatternKey{i + 1, 0}, Pattern{"a", "b", Rule{}}})
	}
	var dumps, dumping atomic.Int64
	var writing []time.Duration
	beside(func() {
		for i := range uint32(30) {
			last := dumps.Load()
			if err := until("another dump", func() bool { return dumps.Load() > last }); err != nil {
				t.Error(err)
				return
			}
			start := time.Now()
			p.apply(SetFrontendRef{1, FrontendRef{Cell: 1, Gen: i + 1}})
			writing = append(writing, time.Since(start))
		}
	}, func() {
		start := time.Now()
		if _, err := p.Dump(); err != nil {
			t.Error(err)
		}
		dumping.Add(int64(time.Since(start)))
		dumps.Add(1)
	})
	slices.Sort(writing)
	write, dump := writing[len(writing)/2], time.Duration(dumping.Load()/dumps.Load())
	if write > dump/4 {
		t.Errorf("a write takes %v while dumps take %v", write, dump)
	}
	t.Logf("a write takes %v while dumps take %v", write, dump)
}
