package kerneltest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Netns is a network namespace whose loopback device is up.
type Netns struct {
	ns *os.File
}

// EnterNetns makes a namespace and puts the calling goroutine into it until the
// test ends: it is bound to its thread, and what it starts, listens on or
// connects is in the namespace. Subtests run in goroutines of their own and are
// not.
func EnterNetns(t testing.TB) *Netns {
	t.Helper()
	Root(t)
	runtime.LockOSThread()
	before := threadNetns(t)
	t.Cleanup(func() {
		if err := unix.Setns(int(before.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Errorf("leave network namespace: %v", err) // the thread ends with its goroutine
			return
		}
		before.Close()
		runtime.UnlockOSThread()
	})
	return newNetns(t)
}

// NewNetns makes another namespace, without entering it.
func NewNetns(t testing.TB) *Netns {
	t.Helper()
	Root(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadNetns(t)
	defer before.Close()
	defer func() {
		if err := unix.Setns(int(before.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("leave network namespace: %v", err))
		}
	}()
	return newNetns(t)
}

func newNetns(t testing.TB) *Netns {
	t.Helper()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare network namespace: %v", err)
	}
	n := &Netns{ns: threadNetns(t)}
	t.Cleanup(func() { n.ns.Close() })
	if err := loopbackUp(); err != nil {
		t.Fatalf("bring the loopback device up: %v", err)
	}
	return n
}

func threadNetns(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// Do runs f in the namespace, on this thread.
func (n *Netns) Do(t testing.TB, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadNetns(t)
	defer before.Close()
	if err := unix.Setns(int(n.ns.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatalf("enter network namespace: %v", err)
	}
	defer func() {
		if err := unix.Setns(int(before.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("leave network namespace: %v", err))
		}
	}()
	f()
}

// AddAddress gives the loopback device of the calling goroutine's namespace an
// address more.
func AddAddress(t testing.TB, addr string) {
	t.Helper()
	if err := addLoopback(netip.MustParseAddr(addr)); err != nil {
		t.Fatalf("add address %s: %v", addr, err)
	}
}

func addLoopback(a netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	address, err := netlink.ParseAddr(netip.PrefixFrom(a, a.BitLen()).String())
	if err != nil {
		return err
	}
	address.Flags = unix.IFA_F_NODAD
	if err := netlink.AddrAdd(lo, address); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	// IPv6 adds the local route in a kernel worker; what is sent before is lost.
	return until(func() error { return reachable(a) })
}

// AddDevice makes a device that is up and has an address, in the calling goroutine's
// namespace, and returns its index. Nobody is at its other end.
func AddDevice(t testing.TB, addr string) int {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "device"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "end"}); err != nil {
		t.Fatalf("add device: %v", err)
	}
	for _, name := range []string{"device", "end"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatalf("bring %s up: %v", name, err)
		}
	}
	link, err := netlink.LinkByName("device")
	if err != nil {
		t.Fatal(err)
	}
	address, err := netlink.ParseAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, address); err != nil {
		t.Fatalf("add address %s: %v", addr, err)
	}
	return link.Attrs().Index
}

// reachable sends a datagram from a socket to itself.
func reachable(a netip.Addr) error {
	port := netip.AddrPortFrom(a, 0)
	fd, err := unix.Socket(domainOf(port), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, sockaddr(port)); err != nil {
		return err
	}
	self, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, self); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		return err
	}
	limit := unix.Timeval{Usec: 10000}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return err
	}
	_, err = unix.Read(fd, make([]byte, 1))
	return err
}
