package bpf

import (
	"errors"
	"fmt"
	"io"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// iterate runs an iterator to its end and calls f for each socket that it writes.
func iterate(p *ebpf.Program, m *ebpf.Map, f func(*sweepSlbDoomedSocket)) error {
	it, err := link.AttachIter(link.IterOptions{Program: p, Map: m})
	if err != nil {
		return fmt.Errorf("attach iterator %s: %w", p, err)
	}
	defer it.Close()
	r, err := it.Open()
	if err != nil {
		return fmt.Errorf("open iterator %s: %w", p, err)
	}
	defer r.Close()
	var socket sweepSlbDoomedSocket
	err = readWalk(r, int(unsafe.Sizeof(socket)), func(record []byte) {
		if decodeRecord(record, &socket) { // it is as long as that
			f(&socket)
		}
	})
	if err != nil {
		return fmt.Errorf("run iterator %s: %w", p, err)
	}
	return nil
}

// readWalk reads an iterator to its end and calls f for each record of so many bytes,
// which are f's until it returns. The kernel interrupts an iterator that has printed
// nothing for a million sockets, by EAGAIN: it goes on from there.
func readWalk(r io.Reader, size int, f func(record []byte)) error {
	buf := make([]byte, 64<<10)
	begun := 0 // bytes of a record that is not whole
	for {
		n, err := r.Read(buf[begun:])
		b := buf[:begun+n]
		for ; len(b) >= size; b = b[size:] {
			f(b[:size])
		}
		begun = copy(buf, b)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, unix.EAGAIN):
			return err
		}
	}
}
