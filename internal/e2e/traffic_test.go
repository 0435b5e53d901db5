package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary plays these parts when it is run in the lab.
const roleVar = "SLICELB_E2E_ROLE"

func play(role string) int {
	flag.CommandLine = flag.NewFlagSet(role, flag.ExitOnError)
	switch role {
	case "backends":
		return playBackends(os.Args[1:])
	case "load":
		return playLoad(os.Args[1:])
	case "sever":
		return playSever(os.Args[1:])
	case "http":
		return playHTTP(os.Args[1:])
	case "ready":
		return playReady(os.Args[1:])
	case "squatter":
		return playSquatter(os.Args[1:])
	}
	if part := parts[role]; part != nil {
		return part(os.Args[1:])
	}
	fmt.Fprintf(os.Stderr, "no role %q\n", role)
	return 2
}

// playBackends echoes over TCP and UDP at every address, with its own address
// in front, until it is told to end.
func playBackends(addrs []string) int {
	for _, a := range addrs {
		ln, err := net.Listen("tcp", a)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		pc, err := net.ListenPacket("udp", a)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					c.SetDeadline(time.Now().Add(30 * time.Second))
					line, err := bufio.NewReader(c).ReadString('\n')
					if err == nil {
						fmt.Fprintf(c, "%s %s", a, line)
						io.Copy(io.Discard, c) // the client closes first, with a reset
					}
				}()
			}
		}()
		go func() {
			b := make([]byte, 2048)
			for {
				n, from, err := pc.ReadFrom(b)
				if err != nil {
					return
				}
				pc.WriteTo(fmt.Appendf(nil, "%s %s", a, b[:n]), from)
			}
		}()
	}
	fmt.Println("listening")
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
	return 0
}

// tally is what a load saw.
type tally struct {
	Connects  int            `json:"connects"` // TCP and connected UDP
	Datagrams int            `json:"datagrams"`
	Failed    int            `json:"failed"`
	Closed    int            `json:"closed"` // connected UDP sockets whose backend went away (edge D38)
	Wrong     int            `json:"wrong"`  // another backend or peer name than may be
	Reasons   []string       `json:"reasons"`
	Backends  map[string]int `json:"backends"`
}

// playLoad is clients that open TCP and UDP to a VIP until standard input ends:
// load VIP CLIENTS BACKEND... . Each echo is checked for its backend and for
// the peer's name. Progress goes to standard output, a line each 100 connects.
func playLoad(args []string) int {
	vip := netip.MustParseAddrPort(args[0])
	var clients int
	fmt.Sscan(args[1], &clients)
	may := map[string]bool{}
	for _, b := range args[2:] {
		may[b] = true
	}
	var (
		mu   sync.Mutex
		sum  = tally{Backends: map[string]int{}}
		done = make(chan struct{})
		wg   sync.WaitGroup
	)
	note := func(kind string, backend string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if kind == "udp" {
			sum.Datagrams++
		} else if sum.Connects++; sum.Connects%100 == 0 {
			fmt.Println(sum.Connects)
		}
		switch {
		case errors.Is(err, errWrong), err == nil && !may[backend]:
			sum.Wrong++
			if err == nil {
				err = fmt.Errorf("backend %s", backend)
			}
		case err != nil:
			sum.Failed++
		default:
			sum.Backends[backend]++
			return
		}
		if len(sum.Reasons) < 20 {
			sum.Reasons = append(sum.Reasons, kind+": "+err.Error())
		}
	}
	for i := range clients {
		wg.Go(func() {
			flow, err := net.ListenUDP("udp", nil) // one socket for all: it keeps its backend
			if err != nil {
				note("udp", "", err)
				return
			}
			defer flow.Close()
			for n := 0; ; n++ {
				text := fmt.Sprintf("client %d call %d\n", i, n)
				b, err := callTCP(vip, text)
				note("tcp", b, err)
				b, err = callUDP(vip, text)
				if errors.Is(err, errClosed) { // so it connects again, as its user would
					mu.Lock()
					sum.Closed++
					mu.Unlock()
					b, err = callUDP(vip, text)
				}
				note("connected udp", b, err)
				b, err = callFlow(flow, vip, text)
				note("udp", b, err)
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	io.Copy(io.Discard, os.Stdin)
	close(done)
	wg.Wait()
	json.NewEncoder(os.Stderr).Encode(sum)
	return 0
}

var (
	errWrong  = errors.New("wrong peer")
	errClosed = errors.New("closed, for its backend is gone")
)

const callTimeout = 5 * time.Second

// backendOf checks an echo and returns who gave it.
func backendOf(echo, text string) (string, error) {
	backend, rest, ok := strings.Cut(echo, " ")
	if !ok || rest != text {
		return "", fmt.Errorf("%w: echo %q of %q", errWrong, echo, text)
	}
	return backend, nil
}

func isPeer(c syscall.Conn, want netip.AddrPort) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer unix.Sockaddr
	var peerErr error
	if err := raw.Control(func(fd uintptr) { peer, peerErr = unix.Getpeername(int(fd)) }); err != nil {
		return err
	}
	if peerErr != nil {
		return fmt.Errorf("getpeername: %w", peerErr)
	}
	var got netip.AddrPort
	switch p := peer.(type) {
	case *unix.SockaddrInet4:
		got = netip.AddrPortFrom(netip.AddrFrom4(p.Addr), uint16(p.Port))
	case *unix.SockaddrInet6:
		got = netip.AddrPortFrom(netip.AddrFrom16(p.Addr).Unmap(), uint16(p.Port))
	}
	if got != want {
		return fmt.Errorf("%w: %s, want %s", errWrong, got, want)
	}
	return nil
}

func callTCP(vip netip.AddrPort, text string) (string, error) {
	c, err := net.DialTimeout("tcp", vip.String(), callTimeout)
	if err != nil {
		return "", err
	}
	defer c.Close()
	tcp := c.(*net.TCPConn)
	tcp.SetLinger(0) // no TIME_WAIT: ports would run out
	c.SetDeadline(time.Now().Add(callTimeout))
	if err := isPeer(tcp, vip); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	b := make([]byte, 256)
	got := 0
	for got == 0 || b[got-1] != '\n' {
		n, err := c.Read(b[got:])
		if err != nil {
			return "", err
		}
		got += n
	}
	return backendOf(string(b[:got]), text)
}

// callUDP connects and makes one exchange. It returns errClosed where the socket was
// closed for its backend is gone: it is connected no more, and a receive says
// ECONNABORTED once.
func callUDP(vip netip.AddrPort, text string) (string, error) {
	c, err := net.DialTimeout("udp", vip.String(), callTimeout)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(callTimeout))
	b := make([]byte, 256)
	n := 0
	err = isPeer(c.(*net.UDPConn), vip)
	if err == nil {
		_, err = io.WriteString(c, text)
	}
	if err == nil {
		n, err = c.Read(b)
	}
	for _, gone := range []error{unix.ENOTCONN, unix.EDESTADDRREQ, unix.ECONNABORTED} {
		if errors.Is(err, gone) {
			return "", fmt.Errorf("%w: %w", errClosed, err)
		}
	}
	if err != nil {
		return "", err
	}
	return backendOf(string(b[:n]), text)
}

func callFlow(c *net.UDPConn, vip netip.AddrPort, text string) (string, error) {
	c.SetDeadline(time.Now().Add(callTimeout))
	if _, err := c.WriteToUDPAddrPort([]byte(text), vip); err != nil {
		return "", err
	}
	b := make([]byte, 256)
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return "", err
	}
	if from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); from != vip {
		return "", fmt.Errorf("%w: reply from %s", errWrong, from)
	}
	return backendOf(string(b[:n]), text)
}
