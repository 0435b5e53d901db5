package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The socket's mode, and limits on connections: a user who opens many, or sits on
// them, takes nothing from another user.
const (
	socketMode  = 0o660
	maxConns    = 256
	maxUserConn = 16 // for each uid but 0
)

// peer is who is at the other end, as the kernel saw it at connect().
type peer struct{ uid uint32 }

// Listen makes the socket at path with mode 0660 and, where gid is not
// negative, that group. A socket that nobody listens on is replaced; anything
// else that stands there is an error. The caller holds the daemon's lock, so
// that no other daemon is between its own bind and listen here.
func Listen(path string, gid int) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// What bind makes has the mode that the socket has, less the umask: never
	// more than it is to have, not for a moment.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }); e != nil {
			return e
		}
		return err
	}}
	made, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ln := made.(*net.UnixListener)
	if gid >= 0 && gid != os.Getegid() {
		err = os.Lchown(path, -1, gid)
	}
	if err == nil {
		err = os.Chmod(path, socketMode) // the unit's UMask= is 0077
	}
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &listener{UnixListener: ln, users: map[uint32]int{}}, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("listen on %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("listen on %s: a file that is no socket is in the way", path)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("listen on %s: another process answers there", path)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	return nil
}

// listener reads each peer's credentials and bounds connections by user.
type listener struct {
	*net.UnixListener

	mu    sync.Mutex
	total int
	users map[uint32]int
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		who, err := peerOf(c)
		if err != nil || !l.admit(who.uid) {
			c.Close()
			continue
		}
		return &conn{UnixConn: c, peer: who, leave: sync.OnceFunc(func() { l.leave(who.uid) })}, nil
	}
}

func (l *listener) admit(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if uid != 0 && (l.users[uid] >= maxUserConn || l.total >= maxConns) {
		return false
	}
	l.users[uid]++
	l.total++
	return true
}

func (l *listener) leave(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.users[uid]--; l.users[uid] == 0 {
		delete(l.users, uid)
	}
}

// conn is a connection whose peer is known.
type conn struct {
	*net.UnixConn
	peer  peer
	leave func()
}

func (c *conn) Close() error {
	c.leave()
	return c.UnixConn.Close()
}

func peerOf(c *net.UnixConn) (peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return peer{}, err
	}
	if credErr != nil {
		return peer{}, fmt.Errorf("peer credentials: %w", credErr)
	}
	return peer{cred.Uid}, nil
}
