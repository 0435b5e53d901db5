package kerneltest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Server answers with its name: over TCP as soon as a connection is accepted
// (and then echoes), over UDP to each datagram.
type Server struct {
	Name string
	Addr netip.AddrPort

	mu   sync.Mutex
	seen map[string]int // what it got, by content
}

// Serve starts a TCP and a UDP server of one name on one address, in the calling
// goroutine's network namespace; port 0 means one that is free for both. The
// address is added to the loopback device where it is not there yet.
func Serve(t testing.TB, name, address string) *Server {
	t.Helper()
	want := netip.MustParseAddrPort(address)
	if !want.Addr().IsLoopback() && !want.Addr().IsUnspecified() {
		AddAddress(t, want.Addr().String())
	}
	s := &Server{Name: name, seen: make(map[string]int)}
	var (
		tcp net.Listener
		udp net.PacketConn
		err error
	)
	for try := 0; ; try++ {
		if tcp, err = listener.Listen(context.Background(), "tcp", want.String()); err != nil {
			t.Fatalf("listen: %v", err)
		}
		s.Addr = tcp.Addr().(*net.TCPAddr).AddrPort()
		if udp, err = listener.ListenPacket(context.Background(), "udp", s.Addr.String()); err == nil {
			break
		}
		tcp.Close()
		if want.Port() != 0 || try == 20 {
			t.Fatalf("listen: %v", err)
		}
	}
	var done sync.WaitGroup
	done.Go(func() { s.serveTCP(tcp) })
	done.Go(func() { s.serveUDP(udp) })
	t.Cleanup(func() {
		tcp.Close()
		udp.Close()
		done.Wait()
	})
	return s
}

// listener has no MPTCP, which a Go listener may have by itself, and may take
// an address that a namespace of its own has only just got.
var listener = func() net.ListenConfig {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 64)
		})
	}}
	lc.SetMultipathTCP(false)
	return lc
}()

func (s *Server) serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if _, err := fmt.Fprintf(c, "%s\n", s.Name); err != nil {
				return
			}
			b := make([]byte, 2048)
			for {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				s.note(b[:n])
				if _, err := c.Write(b[:n]); err != nil {
					return
				}
			}
		}()
	}
}

func (s *Server) serveUDP(c net.PacketConn) {
	b := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		s.note(b[:n])
		if _, err := c.WriteTo([]byte(s.Name+"\n"), from); err != nil {
			return
		}
	}
}

func (s *Server) note(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[string(b)]++
}

// Seen is how often the server got exactly this.
func (s *Server) Seen(data string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[data]
}
