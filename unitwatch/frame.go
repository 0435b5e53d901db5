package unitwatch

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync/atomic"

	"github.com/godbus/dbus/v5"
)

// Any local user can send signals and calls to any connection of the system
// bus, of any size up to the bus's own limit. frames stands between the socket
// and the decoder and lets only what is worth decoding pass.
const (
	maxSignal = 64 << 10
	maxReply  = 4 << 20
	maxFrame  = 128 << 20 // of the protocol: more means that the stream is lost
)

// frames is the connection as the decoder sees it.
type frames struct {
	io.WriteCloser
	in     *bufio.Reader
	binary atomic.Bool // authentication, which is text, is over
	rest   []byte      // of the message being read
	accept func(header) bool
}

func newFrames(conn io.ReadWriteCloser, accept func(header) bool) *frames {
	return &frames{WriteCloser: conn, in: bufio.NewReaderSize(conn, 16<<10), accept: accept}
}

// Write passes on; the client's BEGIN is where messages begin.
func (f *frames) Write(p []byte) (int, error) {
	if !f.binary.Load() && bytes.Equal(p, []byte("BEGIN\r\n")) {
		f.binary.Store(true)
	}
	return f.WriteCloser.Write(p)
}

func (f *frames) Read(p []byte) (int, error) {
	if !f.binary.Load() {
		return f.in.Read(p)
	}
	for len(f.rest) == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

var errFraming = errors.New("message stream is not D-Bus")

// next reads one message into rest, or skips it.
func (f *frames) next() error {
	fixed, err := f.in.Peek(16)
	if err != nil {
		return err
	}
	size, fields, ok := frameSize(fixed)
	if !ok || size > maxFrame {
		return errFraming
	}
	limit := maxSignal
	if t := dbus.Type(fixed[1]); t == dbus.TypeMethodReply || t == dbus.TypeError {
		limit = maxReply
	}
	if size > limit {
		f.accept(header{kind: dbus.Type(fixed[1]), oversize: true})
		_, err := io.CopyN(io.Discard, f.in, int64(size))
		return err
	}
	msg := make([]byte, size)
	if _, err := io.ReadFull(f.in, msg); err != nil {
		return err
	}
	if f.accept(parseHeader(msg, fields)) {
		f.rest = msg
	}
	return nil
}

func byteOrder(b byte) binary.ByteOrder {
	switch b {
	case 'l':
		return binary.LittleEndian
	case 'B':
		return binary.BigEndian
	}
	return nil
}

// frameSize reads a message's fixed header: the whole message's size, and that
// of its array of fields, which begins at 16.
func frameSize(fixed []byte) (size, fields int, ok bool) {
	order := byteOrder(fixed[0])
	if order == nil {
		return 0, 0, false
	}
	body, array := uint64(order.Uint32(fixed[4:])), uint64(order.Uint32(fixed[12:]))
	total := 16 + (array+7)&^7 + body
	if total > maxFrame {
		return maxFrame + 1, 0, true
	}
	return int(total), int(array), true
}

// header is what decides whether a message is decoded at all.
type header struct {
	kind     dbus.Type
	sender   string
	path     string
	oversize bool
	broken   bool
}

// parseHeader finds sender and path among a message's header fields: an array of
// (byte, variant), each aligned to 8, whose values are strings, object paths,
// signatures or uint32.
func parseHeader(msg []byte, fields int) header {
	h := header{kind: dbus.Type(msg[1])}
	order := byteOrder(msg[0])
	end := 16 + fields
	if end > len(msg) {
		h.broken = true
		return h
	}
	for at := 16; at < end; {
		at = (at + 7) &^ 7
		if at+4 > end || msg[at+1] != 1 || msg[at+3] != 0 { // code, signature of length 1
			h.broken = true
			return h
		}
		code, kind := dbus.HeaderField(msg[at]), msg[at+2]
		at += 4
		var from, length int
		switch kind {
		case 's', 'o':
			at = (at + 3) &^ 3
			if at+4 > end {
				h.broken = true
				return h
			}
			from, length = at+4, int(order.Uint32(msg[at:]))
			at = from + length + 1
		case 'g':
			if at >= end {
				h.broken = true
				return h
			}
			from, length = at+1, int(msg[at])
			at = from + length + 1
		case 'u':
			at = (at+3)&^3 + 4
		default:
			h.broken = true
			return h
		}
		if at > end || length < 0 || from+length > end {
			h.broken = true
			return h
		}
		switch {
		case code == dbus.FieldSender && kind == 's':
			h.sender = string(msg[from : from+length])
		case code == dbus.FieldPath && kind == 'o':
			h.path = string(msg[from : from+length])
		}
	}
	return h
}
