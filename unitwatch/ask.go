package unitwatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	sdbus "github.com/coreos/go-systemd/v22/dbus"
)

// What follows asks systemd a single question over a connection of its own, which is
// closed with the answer. Nothing here makes systemd load a unit: it lists by
// patterns, and reads properties of what is loaded. The context bounds the answer.

// ErrNotLoaded is returned for a unit that systemd has not loaded.
var ErrNotLoaded = errors.New("not loaded")

// LoadedUnit is how systemd says a loaded unit is: "active", "running".
type LoadedUnit struct {
	Active, Sub string
	StartJob    bool // it has a job that starts it, at once or when it has stopped
}

// AskUnit asks how a unit is, root also where there is no bus.
func AskUnit(ctx context.Context, name string) (LoadedUnit, error) {
	conn, err := dialSystemd(ctx)
	if err != nil {
		return LoadedUnit{}, err
	}
	defer conn.Close()
	return loaded(ctx, conn, name)
}

// dialSystemd opens a connection for root to systemd itself, past the bus, as systemctl
// does: at a shutdown the bus is among the first that end, while its socket still takes
// calls that nobody answers. Others are not let in there, and it may be missing.
func dialSystemd(ctx context.Context) (*sdbus.Conn, error) {
	if os.Geteuid() == 0 {
		if conn, err := sdbus.NewSystemdConnectionContext(ctx); err == nil {
			return conn, nil
		}
	}
	return sdbus.NewSystemConnectionContext(ctx)
}

// loaded lists one unit: to ask for it by its name would load it.
func loaded(ctx context.Context, conn *sdbus.Conn, name string) (LoadedUnit, error) {
	// A pattern takes backslashes as they are (FNM_NOESCAPE); nothing else that has a
	// meaning in one can stand in a unit's name.
	list, err := conn.ListUnitsByPatternsContext(ctx, nil, []string{name})
	if err != nil {
		return LoadedUnit{}, err
	}
	for _, u := range list {
		if u.Name == name {
			return LoadedUnit{Active: u.ActiveState, Sub: u.SubState, StartJob: isStart(u.JobType)}, nil
		}
	}
	return LoadedUnit{}, ErrNotLoaded
}

// AskControlGroup asks for the cgroup of a unit, as a path from the root of the
// hierarchy: "" where it has none, and how it is then.
func AskControlGroup(ctx context.Context, name string) (string, LoadedUnit, error) {
	conn, err := sdbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return "", LoadedUnit{}, err
	}
	defer conn.Close()
	state, err := loaded(ctx, conn, name)
	if err != nil {
		return "", LoadedUnit{}, err
	}
	kind := strings.TrimPrefix(filepath.Ext(name), ".")
	if kind == "" {
		return "", LoadedUnit{}, ErrNotLoaded
	}
	p, err := conn.GetUnitTypePropertyContext(ctx, name, strings.ToUpper(kind[:1])+kind[1:], "ControlGroup")
	if err != nil {
		return "", state, err
	}
	path, _ := p.Value.Value().(string)
	return path, state, nil
}

// AskDescriptorStore asks how many descriptors systemd holds for the service that a
// process belongs to, and how many it would (NFileDescriptorStore and
// FileDescriptorStoreMax, systemd 218 and later).
func AskDescriptorStore(ctx context.Context, pid int) (held, most uint32, err error) {
	conn, err := sdbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("ask systemd about the descriptor store: %w", err)
	}
	defer conn.Close()
	unit, err := conn.GetUnitNameByPID(ctx, uint32(pid))
	if err != nil {
		return 0, 0, fmt.Errorf("ask systemd for the unit of process %d: %w", pid, err)
	}
	number := func(name string) (uint32, error) {
		p, err := conn.GetUnitTypePropertyContext(ctx, unit, "Service", name)
		if err != nil {
			return 0, fmt.Errorf("ask systemd for %s of %s: %w", name, unit, err)
		}
		n, ok := p.Value.Value().(uint32)
		if !ok {
			return 0, fmt.Errorf("ask systemd for %s of %s: a %s came", name, unit, p.Value.Signature())
		}
		return n, nil
	}
	if held, err = number("NFileDescriptorStore"); err != nil {
		return 0, 0, err
	}
	most, err = number("FileDescriptorStoreMax")
	return held, most, err
}
