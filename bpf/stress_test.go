package bpf

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/internal/scale"
)

// Look-ups of frontends, views, cells and groups while all of them are inserted,
// changed and deleted at full speed, in tables small enough that elements are
// reused at once. Each VIP's backend counts exactly the connections that were
// made to it: a torn value, a miss of what is there or another key's value would
// show at that backend, at another, or at the trap where callers without a group
// end. // fault F30
func TestKernelStress(t *testing.T) {
	opts := small
	opts.Capacities.Frontends = 64
	opts.Capacities.Views = 64
	opts.Capacities.Cgroups = 64
	p := newPlane(t, opts)
	const (
		stable = 8
		churn  = 8
		node   = 1
	)
	group := p.newGroup("callers", true)
	slice := p.root.Make(t, "a.slice")
	leaf := slice.Make(t, "x.scope", "container")
	p.mapTo(p.root, 0, node)
	p.mapTo(slice, group, 0)
	p.apply(PutPattern{PatternKey{node, 0}, Pattern{"churn", "", Rule{Group: group}}})

	// Nobody listens: connecting a UDP socket sends nothing.
	trap := p.vip("trap", "10.97.0.1:53/udp")
	trapIndex := trap.index(frontendKey("127.0.0.9:9").Addr)
	p.slot = 1 // one slot for all default cells
	p.apply(SetSlots{0, []uint32{trapIndex}})

	type target struct {
		*service
		view  uint32
		index uint32
		flips [2]Cell
	}
	var targets []target
	var to, mayFail []string
	for i := range stable {
		vip := fmt.Sprintf("10.96.0.%d:53", i)
		v := p.vip(vip, vip+"/udp")
		v.set(Cell{Base: 0, Count: 1, Action: Balance})
		index := v.index(frontendKey(fmt.Sprintf("127.0.1.%d:9", i)).Addr)
		// Two regions of different sizes, apart: a base of one with the count of
		// the other reaches the next VIP's slots.
		var flips [2]Cell
		for f, size := range []int{1, 37} {
			slots := make([]uint32, size)
			for s := range slots {
				slots[s] = index
			}
			flips[f] = Cell{Base: p.slot, Count: uint32(size), Action: Balance}
			p.apply(SetSlots{p.slot, slots})
			p.slot += uint32(size)
		}
		view := v.view(group, flips[0])
		targets = append(targets, target{v, view, index, flips})
		to = append(to, vip)
	}
	var churned []target // by frontends that come and go
	for i := range churn {
		vip := fmt.Sprintf("10.96.1.%d:53", i)
		v := p.vip(vip, vip+"/udp")
		index := v.index(frontendKey(fmt.Sprintf("127.0.2.%d:9", i)).Addr)
		p.apply(SetSlots{p.slot, []uint32{index}})
		v.set(Cell{Base: p.slot, Count: 1, Action: Balance})
		p.slot++
		churned = append(churned, target{service: v, index: index})
		mayFail = append(mayFail, vip)
		p.apply(DelFrontend{frontendKey(vip + "/udp")})
	}

	// Two clients, sixteen addresses, of which eight cost four look-ups or more and
	// eight at least one: 10^8 in all.
	n := scale.Count(1_250_000)
	const clients = 2
	var running, writers sync.WaitGroup
	wrong := make([][]string, clients)
	for i := range clients {
		c := kerneltest.Start(t, leaf)
		running.Go(func() {
			var err error
			if wrong[i], err = c.Hammer(n, to, mayFail); err != nil {
				t.Error(err)
			}
		})
	}
	maker := kerneltest.Start(t, p.root)
	stop := make(chan struct{})
	writers.Go(func() { // the kernel's own inserts and deletes
		for !isClosed(stop) {
			if err := maker.Churn(p.root, 50); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var writes int
	writers.Go(func() {
		rnd := rand.New(rand.NewPCG(1, 2))
		leafID := leaf.ID(t)
		frontends, members := map[int]bool{}, false
		toggle := func(on bool, put, del Write) bool {
			w := put
			if on {
				w = del
			}
			if err := p.Apply(w); err != nil && !errors.Is(err, ErrFull) {
				t.Error(err)
			}
			return !on
		}
		for ; !isClosed(stop); writes++ {
			i := rnd.IntN(churn)
			v := targets[rnd.IntN(stable)]
			switch rnd.IntN(6) {
			case 0: // other frontends come and go
				key := frontendKey(mayFail[i] + "/udp")
				frontends[i] = toggle(frontends[i], PutFrontend{key, churned[i].frontends[key]}, DelFrontend{key})
			case 1: // other groups' views
				g := uint32(100 + i)
				for _, w := range []Write{PutView{ViewKey{v.cell, g}, trap.cell}, DelView{ViewKey{v.cell, g}}} {
					if err := p.Apply(w); err != nil && !errors.Is(err, ErrFull) {
						t.Error(err)
					}
				}
			case 2: // the caller's own entry, which says what its anchor says
				members = toggle(members, PutCgroup{leafID, Rule{Group: group}}, DelCgroup{leafID})
			case 3: // in place
				if err := p.Apply(SetCgroup{slice.ID(t), Rule{Group: group, Node: rnd.Uint32N(1 << 20)}}); err != nil {
					t.Error(err)
				}
			case 4: // cgroups that are not there
				id := uint64(1<<40 + i)
				if err := p.Apply(PutCgroup{id, Rule{Group: 999}}); err != nil && !errors.Is(err, ErrFull) {
					t.Error(err)
				}
				if err := p.Apply(DelCgroup{id}); err != nil {
					t.Error(err)
				}
			case 5: // the cell flips between its regions
				c := v.flips[rnd.IntN(2)]
				c.Gen = uint16(writes & CellGenMask)
				if err := p.Apply(SetCell{v.view, c}); err != nil {
					t.Error(err)
				}
			}
		}
	})
	running.Wait()
	close(stop)
	writers.Wait()
	t.Logf("%d writes during %d connections", writes, clients*n*(stable+churn))

	for _, w := range wrong {
		for _, line := range w {
			t.Error(line)
		}
	}
	got := p.counters().Backends
	for _, v := range targets {
		if c := got[v.index].Connects; c != uint64(clients*n) {
			t.Errorf("%s was chosen %d times for %d connections", v.name, c, clients*n)
		}
	}
	hits := uint64(0)
	for _, v := range churned {
		c := got[v.index].Connects
		if hits += c; c > uint64(clients*n) {
			t.Errorf("%s was chosen %d times for %d connections", v.name, c, clients*n)
		}
	}
	t.Logf("%d of %d connections met a frontend that comes and goes", hits, clients*n*churn)
	if c := got[trapIndex].Connects; c != 0 {
		t.Errorf("%d callers were found in no group", c)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
