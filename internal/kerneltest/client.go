package kerneltest

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	clientEnv = "SLICELB_TEST_CLIENT"
	heirEnv   = "SLICELB_TEST_HEIR"
)

// Client is a process in a cgroup that makes single system calls on demand.
type Client struct {
	t   testing.TB
	mu  sync.Mutex // one call at a time
	in  *gob.Encoder
	out *gob.Decoder
	Pid int

	cmd    *exec.Cmd
	killed bool
}

// request is one system call; reply is what came of it.
type request struct {
	Op      string
	FD      int
	Args    [3]int // domain, type, protocol; or level, option, value
	Addr    netip.AddrPort
	Addrs   []netip.AddrPort
	Data    []byte
	Flags   int
	Path    string
	Count   int
	Timeout time.Duration
}

type reply struct {
	Errno syscall.Errno
	Err   string // what is no errno: a bug in the test
	N     int
	Addr  netip.AddrPort
	Data  []byte
	Load  LoadResult
	Wrong []string
}

// Start starts a client process in c, in the calling goroutine's network
// namespace. It ends with the test.
func Start(t testing.TB, c *Cgroup) *Client {
	t.Helper()
	return start(t, c, &syscall.SysProcAttr{})
}

// rootlessID is root's in the user namespace of a StartRootless: nobody's here.
const rootlessID = 165536

// StartRootless is Start in a user namespace of its own, and in a network namespace
// that belongs to that, as a rootless container's; its loopback device is up and has
// an address more.
func StartRootless(t testing.TB, c *Cgroup, addr string) *Client {
	t.Helper()
	ids := []syscall.SysProcIDMap{{HostID: rootlessID, Size: 1}}
	client := start(t, c, &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, UidMappings: ids, GidMappings: ids,
		Credential: &syscall.Credential{NoSetGroups: true},
	})
	if _, err := client.do(request{Op: "loopback", Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 0)}); err != nil {
		t.Fatalf("network of a user namespace: %v", err)
	}
	return client
}

func start(t testing.TB, c *Cgroup, attr *syscall.SysProcAttr) *Client {
	t.Helper()
	dir, err := os.Open(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("/proc/self/exe")
	// The runtime's signals would interrupt calls on sockets that have a time limit.
	cmd.Env = append(os.Environ(), clientEnv+"=1", "GODEBUG=asyncpreemptoff=1")
	cmd.Stderr = os.Stderr
	attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	cmd.SysProcAttr = attr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start client: %v", err)
	}
	client := &Client{t: t, in: gob.NewEncoder(in), out: gob.NewDecoder(out), Pid: cmd.Process.Pid, cmd: cmd}
	t.Cleanup(func() {
		in.Close() // it ends by itself at the end of its input
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil && !client.killed {
			t.Errorf("client: %v", err)
		}
	})
	return client
}

// Kill ends the client with SIGKILL; the kernel closes what it had open. Nothing
// can be asked of it afterwards.
func (c *Client) Kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killed = true
	return c.cmd.Process.Kill()
}

// do makes a call; its error is a syscall.Errno. A client that does not answer
// ends the test.
func (c *Client) do(r request) (reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t.Helper()
	var answer reply
	if err := c.in.Encode(r); err != nil {
		panic(fmt.Sprintf("client %d: %s: %v", c.Pid, r.Op, err))
	}
	if err := c.out.Decode(&answer); err != nil {
		panic(fmt.Sprintf("client %d: %s: %v", c.Pid, r.Op, err))
	}
	if answer.Err != "" {
		return answer, fmt.Errorf("%s: %s", r.Op, answer.Err)
	}
	if answer.Errno != 0 {
		return answer, answer.Errno
	}
	return answer, nil
}

// Enter moves the client into another cgroup.
func (c *Client) Enter(g *Cgroup) error {
	_, err := c.do(request{Op: "enter", Path: g.Path})
	return err
}

// Socket is a socket of a client.
type Socket struct {
	c  *Client
	fd int
}

// Socket makes a socket that waits three seconds at most.
func (c *Client) Socket(domain, typ, protocol int) (*Socket, error) {
	r, err := c.do(request{Op: "socket", Args: [3]int{domain, typ, protocol}})
	return &Socket{c, r.N}, err
}

// MustSocket is Socket where it cannot fail.
func (c *Client) MustSocket(domain, typ, protocol int) *Socket {
	c.t.Helper()
	s, err := c.Socket(domain, typ, protocol)
	if err != nil {
		c.t.Fatalf("socket: %v", err)
	}
	return s
}

// TCP and UDP make a socket of to's family; a v4-mapped address is IPv6's.
func (c *Client) TCP(to string) *Socket {
	c.t.Helper()
	return c.MustSocket(domain(to), unix.SOCK_STREAM, 0)
}

func (c *Client) UDP(to string) *Socket {
	c.t.Helper()
	return c.MustSocket(domain(to), unix.SOCK_DGRAM, 0)
}

func domain(to string) int { return domainOf(netip.MustParseAddrPort(to)) }

// Connect connects; an address in IPv4's form is sent as AF_INET, whatever the
// socket's family.
func (s *Socket) Connect(to string) error {
	_, err := s.c.do(request{Op: "connect", FD: s.fd, Addr: netip.MustParseAddrPort(to)})
	return err
}

// Bind gives the socket an address of its own.
func (s *Socket) Bind(to string) error {
	_, err := s.c.do(request{Op: "bind", FD: s.fd, Addr: netip.MustParseAddrPort(to)})
	return err
}

// ConnectUring is Connect through io_uring, by a worker thread if async.
func (s *Socket) ConnectUring(to string, async bool) error {
	r := request{Op: "uring", FD: s.fd, Addr: netip.MustParseAddrPort(to)}
	if async {
		r.Args[0] = 1
	}
	_, err := s.c.do(r)
	return err
}

// ConnectByHeir is Connect through a polled io_uring of the client's, at the word of
// a child that inherits the ring and goes to another cgroup first.
func (s *Socket) ConnectByHeir(to string, heir *Cgroup) error {
	_, err := s.c.do(request{Op: "heir", FD: s.fd, Addr: netip.MustParseAddrPort(to), Path: heir.Path})
	return err
}

// Disconnect is connect with AF_UNSPEC.
func (s *Socket) Disconnect() error {
	_, err := s.c.do(request{Op: "disconnect", FD: s.fd})
	return err
}

// Peer is getpeername.
func (s *Socket) Peer() (string, error) {
	r, err := s.c.do(request{Op: "getpeername", FD: s.fd})
	if err != nil {
		return "", err
	}
	return r.Addr.String(), nil
}

// Send is send: for a connected socket.
func (s *Socket) Send(data string) error {
	_, err := s.c.do(request{Op: "send", FD: s.fd, Data: []byte(data)})
	return err
}

// SendTo is sendto with flags.
func (s *Socket) SendTo(data, to string, flags int) error {
	_, err := s.c.do(request{
		Op: "sendto", FD: s.fd, Data: []byte(data), Addr: netip.MustParseAddrPort(to), Flags: flags,
	})
	return err
}

// SendMany is one sendmmsg of data to each address; it returns how many went.
func (s *Socket) SendMany(data string, to ...string) (int, error) {
	r := request{Op: "sendmmsg", FD: s.fd, Data: []byte(data)}
	for _, a := range to {
		r.Addrs = append(r.Addrs, netip.MustParseAddrPort(a))
	}
	answer, err := s.c.do(r)
	return answer.N, err
}

// Receive is recv, without an address.
func (s *Socket) Receive() (string, error) {
	r, err := s.c.do(request{Op: "recv", FD: s.fd})
	return string(r.Data), err
}

// ReceiveFrom is recvfrom with the sender's address.
func (s *Socket) ReceiveFrom() (data, from string, err error) {
	r, err := s.c.do(request{Op: "recvfrom", FD: s.fd})
	if err != nil {
		return "", "", err
	}
	return string(r.Data), r.Addr.String(), nil
}

// ReceiveError is recvmsg with MSG_ERRQUEUE: the address of the packet that failed.
func (s *Socket) ReceiveError() (to string, err error) {
	r, err := s.c.do(request{Op: "recverr", FD: s.fd})
	if err != nil {
		return "", err
	}
	return r.Addr.String(), nil
}

// SetOption is setsockopt of an int.
func (s *Socket) SetOption(level, option, value int) error {
	_, err := s.c.do(request{Op: "setsockopt", FD: s.fd, Args: [3]int{level, option, value}})
	return err
}

// Retransmits is how often the socket's segments were sent again.
func (s *Socket) Retransmits() int {
	r, _ := s.c.do(request{Op: "retransmits", FD: s.fd})
	return r.N
}

// Close closes the socket.
func (s *Socket) Close() error {
	_, err := s.c.do(request{Op: "close", FD: s.fd})
	return err
}

// Pass sends the socket to another client over SCM_RIGHTS.
func (s *Socket) Pass(to *Client) (*Socket, error) {
	const path = "\x00slicelb-test-pass"
	listening, err := to.do(request{Op: "listenfd", Path: path})
	if err != nil {
		return nil, err
	}
	if _, err := s.c.do(request{Op: "sendfd", FD: s.fd, Path: path}); err != nil {
		return nil, err
	}
	r, err := to.do(request{Op: "recvfd", FD: listening.N})
	return &Socket{to, r.N}, err
}

// Load is many connections, one after the other, without a word in between.
type Load struct {
	To      string // a VIP
	UDP     bool   // connected UDP instead of TCP
	Count   int    // or until Timeout
	Timeout time.Duration
}

// Connection is one of a Load's. At and Until are CLOCK_MONOTONIC just before and
// just after connect.
type Connection struct {
	At     time.Duration
	Until  time.Duration
	Server string
	Peer   netip.AddrPort
	Errno  syscall.Errno
}

// LoadResult is what came of a Load.
type LoadResult struct {
	Connections []Connection
}

// Run makes the connections.
func (c *Client) Run(l Load) (LoadResult, error) {
	r := request{Op: "load", Addr: netip.MustParseAddrPort(l.To), Count: l.Count, Timeout: l.Timeout}
	if l.UDP {
		r.Args[0] = 1
	}
	answer, err := c.do(r)
	return answer.Load, err
}

// ConnectAtOnce makes a cgroup below parent, enters it, and connects, with
// nothing between the last two; then it removes the cgroup. It does so count
// times, with the time's number for %d in name, and leaves the client in back.
func (c *Client) ConnectAtOnce(count int, parent, name string, to string, back *Cgroup) (LoadResult, error) {
	answer, err := c.do(request{
		Op: "atonce", Count: count, Path: parent, Data: []byte(name),
		Addr: netip.MustParseAddrPort(to),
	})
	return answer.Load, errors.Join(err, c.Enter(back))
}

// Hammer connects one UDP socket again and again, to one address after the other,
// count times each, and asks for the peer's name now and then. It returns what
// went wrong, by address; what fails at an address in mayFail is not.
func (c *Client) Hammer(count int, to, mayFail []string) ([]string, error) {
	r := request{Op: "hammer", Count: count, Args: [3]int{len(to)}}
	for _, a := range append(to[:len(to):len(to)], mayFail...) {
		r.Addrs = append(r.Addrs, netip.MustParseAddrPort(a))
	}
	answer, err := c.do(r)
	return answer.Wrong, err
}

// Churn makes and removes a directory in g count times.
func (c *Client) Churn(g *Cgroup, count int) error {
	_, err := c.do(request{Op: "churn", Path: g.Path, Count: count})
	return err
}

// Monotonic reads CLOCK_MONOTONIC, as Connection.At does.
func Monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}
