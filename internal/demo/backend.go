package main

import (
	"context"
	"io"
	"net"
	"os"

	"golang.org/x/sync/errgroup"
)

// serve answers with its name on a port of both loopback addresses: over TCP
// to whoever connects, over UDP to each datagram.
func serve(ctx context.Context, name, port string) error {
	tasks, ctx := errgroup.WithContext(ctx)
	for _, host := range []string{"127.0.0.1", "::1"} {
		address := net.JoinHostPort(host, port)
		tcp, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		udp, err := net.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		tasks.Go(func() error { return serveTCP(ctx, tcp, name) })
		tasks.Go(func() error { return serveUDP(ctx, udp, name) })
	}
	if err := ready(); err != nil {
		return err
	}
	return tasks.Wait()
}

func serveTCP(ctx context.Context, l net.Listener, name string) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		conn.Write([]byte(name))
		conn.Close()
	}
}

func serveUDP(ctx context.Context, c net.PacketConn, name string) error {
	defer context.AfterFunc(ctx, func() { c.Close() })()
	buf := make([]byte, 64)
	for {
		_, from, err := c.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		c.WriteTo([]byte(name), from)
	}
}

// ready tells systemd that it listens, where systemd asked to be told.
func ready() error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.WriteString(c, "READY=1")
	return err
}
