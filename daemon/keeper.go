package daemon

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/godbus/dbus/v5"
)

// storeCount is what the manager says about this unit's descriptor store.
type storeCount struct {
	held, max uint32
	err       error
	said      bool   // there was an answer, or none could be had
	of        uint64 // fdStore.sends before the question
	received  bool   // the manager had worked off those
}

// storeTimeout bounds one question to the manager.
const storeTimeout = 5 * time.Second

// countStore asks the manager how many descriptors it holds for the unit that
// this process is the main process of. While the daemon runs the manager may
// drop them: the unit was masked, its file is missing, its limit was lowered.
func countStore(ctx context.Context) storeCount {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return storeCount{err: fmt.Errorf("ask systemd about the descriptor store: %w", err)}
	}
	defer conn.Close()
	const name = "org.freedesktop.systemd1"
	var unit dbus.ObjectPath
	manager := conn.Object(name, "/org/freedesktop/systemd1")
	if err := manager.CallWithContext(ctx, name+".Manager.GetUnitByPID", 0, uint32(os.Getpid())).Store(&unit); err != nil {
		return storeCount{err: fmt.Errorf("ask systemd for this process's unit: %w", err)}
	}
	// The unit runs, so reading its properties loads nothing.
	property := func(prop string) (uint32, error) {
		var v dbus.Variant
		call := conn.Object(name, unit).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, name+".Service", prop)
		if err := call.Store(&v); err != nil {
			return 0, fmt.Errorf("ask systemd for %s: %w", prop, err)
		}
		n, ok := v.Value().(uint32)
		if !ok {
			return 0, fmt.Errorf("ask systemd for %s: a %s came", prop, v.Signature())
		}
		return n, nil
	}
	held, err := property("NFileDescriptorStore")
	if err != nil {
		return storeCount{err: err}
	}
	limit, err := property("FileDescriptorStoreMax")
	return storeCount{held: held, max: limit, err: err}
}

// keeper asks the manager, one question at a time, whenever it is poked.
type keeper struct {
	store  *fdStore // its count of sends, and the way to the manager
	pokes  chan struct{}
	counts chan storeCount
	count  func(context.Context) storeCount
}

func newKeeper(s *fdStore) *keeper {
	return &keeper{store: s, pokes: make(chan struct{}, 1), counts: make(chan storeCount), count: countStore}
}

// ask counts what the manager holds once it has all that was sent until now.
func (k *keeper) ask(ctx context.Context) storeCount {
	sends := k.store.sends.Load()
	received := k.store.had.Load() >= sends || k.store.notify.barrier(ctx) == nil
	c := k.count(ctx)
	c.of, c.received = sends, received
	return c
}

// poke makes the keeper ask soon.
func (k *keeper) poke() {
	select {
	case k.pokes <- struct{}{}:
	default:
	}
}

func (k *keeper) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.pokes:
		}
		c := k.ask(ctx)
		select {
		case <-ctx.Done():
			return nil
		case k.counts <- c:
		}
	}
}
