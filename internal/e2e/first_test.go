package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/lab"
)

// answers counts who answered, or what went wrong.
type answers map[string]int

func (a answers) String() string {
	b, _ := json.Marshal(map[string]int(a))
	return string(b)
}

// playFirsts connects as the first thing in new cgroups: firsts VIP COUNT FIXED
// FRESH. FIXED is there and stays; FRESH is made anew for each, with "%d" its
// number, and up to five levels more below it. It prints an answer count in JSON.
func playFirsts(args []string) int {
	vip := netip.MustParseAddrPort(args[0])
	n, err := numbers(args[1])
	if err != nil {
		return fail(err)
	}
	home, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return fail(err)
	}
	_, back, _ := strings.Cut(string(home), "0::")
	back = filepath.Join(lab.CgroupRoot, strings.TrimSpace(back), "cgroup.procs")
	if len(args) > 2 && args[2] != "" {
		if err := os.MkdirAll(filepath.Join(lab.CgroupRoot, args[2]), 0o755); err != nil {
			return fail(err)
		}
	}
	got := answers{}
	for i := range n[0] {
		names := strings.Split(strings.Trim(strings.ReplaceAll(args[3], "%d", fmt.Sprint(i)), "/"), "/")
		for depth := range i % 6 {
			names = append(names, fmt.Sprintf("d%d", depth))
		}
		who, err := firstIn(filepath.Join(lab.CgroupRoot, args[2]), names, back, vip)
		if err != nil {
			return fail(err)
		}
		got[who]++
	}
	fmt.Println(got)
	return 0
}

// firstIn makes cgroups, one in the other, connects in the innermost at once,
// goes back and removes them.
func firstIn(at string, names []string, back string, vip netip.AddrPort) (who string, err error) {
	var made []string
	for _, name := range names {
		at = filepath.Join(at, name)
		if err := os.Mkdir(at, 0o755); err != nil {
			return "", err
		}
		made = append(made, at)
	}
	procs, err := os.OpenFile(filepath.Join(at, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	defer procs.Close()
	if _, err := procs.WriteString("0"); err != nil {
		return "", err
	}
	if who, err = callTCP(vip, "x\n"); err != nil {
		who = err.Error()
	}
	if err := os.WriteFile(back, []byte("0"), 0); err != nil {
		return "", err
	}
	for i := len(made) - 1; i >= 0; i-- {
		if err := os.Remove(made[i]); err != nil {
			return "", err
		}
	}
	return who, nil
}

// first is testdata/first.c in the lab.
const first = "/usr/local/bin/first"

// told is the socket at which playUnits hears of answers.
const told = "/run/first.sock"

// playUnits starts units by way of systemd whose first act is to connect: units
// VIP COUNT SLICE CYCLE PID. "%d" in SLICE is the unit's number. With CYCLE
// "stop" the slice is stopped after each, and the kernel's table of the daemon
// PID must have forgotten it. It prints an answer count in JSON.
func playUnits(args []string) int {
	n, err := numbers(args[1])
	if err != nil {
		return fail(err)
	}
	vip := netip.MustParseAddrPort(args[0])
	os.Remove(told)
	hear, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: told, Net: "unixgram"})
	if err != nil {
		return fail(err)
	}
	defer hear.Close()
	bus, err := dbus.ConnectSystemBus()
	if err != nil {
		return fail(err)
	}
	defer bus.Close()
	systemd := bus.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	got := answers{}
	for i := range n[0] {
		slice := strings.ReplaceAll(args[2], "%d", fmt.Sprint(i))
		unit := fmt.Sprintf("first-%d@%d.service", os.Getpid(), 20_000+i)
		argv := []string{first, vip.Addr().String(), fmt.Sprint(vip.Port()), told, unit}
		type exec struct {
			Path   string
			Args   []string
			Ignore bool
		}
		type property struct {
			Name  string
			Value dbus.Variant
		}
		properties := []property{
			{"Slice", dbus.MakeVariant(slice)},
			{"CollectMode", dbus.MakeVariant("inactive-or-failed")},
			{"ExecStart", dbus.MakeVariant([]exec{{first, argv, false}})},
		}
		var job dbus.ObjectPath
		if err := systemd.Call("org.freedesktop.systemd1.Manager.StartTransientUnit", 0, unit, "replace", properties, []struct {
			Name       string
			Properties []property
		}{}).Store(&job); err != nil {
			return fail(fmt.Errorf("start %s: %w", unit, err))
		}
		b := make([]byte, 256)
		hear.SetReadDeadline(time.Now().Add(30 * time.Second))
		size, err := hear.Read(b)
		if err != nil {
			return fail(fmt.Errorf("%s says nothing: %w", unit, err))
		}
		tag, who, _ := strings.Cut(string(b[:size]), " ")
		if tag != unit {
			return fail(fmt.Errorf("%s answers for %s", tag, unit))
		}
		got[who]++
		if args[3] != "stop" {
			continue
		}
		stale, err := stopSlice(systemd, slice, args[4])
		if err != nil {
			return fail(err)
		}
		got["stale"] += stale
	}
	fmt.Println(got)
	return 0
}

// stopSlice stops a slice and returns how many of its cgroups, which are gone
// then, still are in the daemon's table.
func stopSlice(systemd dbus.BusObject, slice, pid string) (stale int, err error) {
	dir := filepath.Join(lab.CgroupRoot, slice)
	id, err := inodeOf(dir)
	if err != nil {
		return 0, err
	}
	table, err := cgroupTable(pid)
	if err != nil {
		return 0, err
	}
	defer table.Close()
	if groupIn(table, id) == 0 {
		return 0, fmt.Errorf("%s is in no group", slice)
	}
	var job dbus.ObjectPath
	if err := systemd.Call("org.freedesktop.systemd1.Manager.StopUnit", 0, slice, "replace").Store(&job); err != nil {
		return 0, fmt.Errorf("stop %s: %w", slice, err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		if now, err := inodeOf(dir); err != nil || now != id {
			break
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("%s does not go", slice)
		}
	}
	// The directory is out of sight a moment before rmdir(2) comes to its tracepoint
	// (cgroup_rmdir() in kernel/cgroup/cgroup.c, Linux 6.18). systemd answers when that
	// call of its own has returned.
	if err := systemd.Call("org.freedesktop.DBus.Peer.Ping", 0).Err; err != nil {
		return 0, fmt.Errorf("ask systemd for an answer: %w", err)
	}
	if groupIn(table, id) != 0 {
		stale++
	}
	return stale, nil
}

func inodeOf(path string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return st.Ino, err
}
