package main

import (
	"os"
	"os/user"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// daemonUser is whom the unit runs the daemon as.
const daemonUser = "slicelb"

// become has the calling goroutine's thread open files as a user, with that
// user's groups, and reports whether it does: only root can, and only where there
// is such a user. There is no way back, so the thread ends with the goroutine.
func become(name string) bool {
	if os.Geteuid() != 0 {
		return false
	}
	u, err := user.Lookup(name)
	if err != nil {
		return false
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return false
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return false
	}
	all, err := u.GroupIds()
	if err != nil {
		return false
	}
	groups := []uint32{uint32(gid)}
	for _, g := range all {
		if n, err := strconv.ParseUint(g, 10, 32); err == nil {
			groups = append(groups, uint32(n))
		}
	}
	runtime.LockOSThread()
	// Not package unix's: those change every thread.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
		return false
	}
	// The kernel takes root's privilege over files away with it.
	if err := unix.Setfsgid(gid); err != nil {
		return false
	}
	return unix.Setfsuid(uid) == nil
}
