package kernels

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
)

// archive writes an initramfs: a cpio archive in the "newc" format, compressed.
// Errors stay until close.
type archive struct {
	out   *gzip.Writer
	inode int
	made  map[string]bool
	err   error
}

func newArchive(w io.Writer) *archive {
	// Small enough at any level, and the emulated machine unpacks it.
	out, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	return &archive{out: out, made: map[string]bool{}, err: err}
}

// dir adds a directory once.
func (a *archive) dir(name string) {
	if !a.made[name] {
		a.made[name] = true
		a.entry(name, 0o040755, nil)
	}
}

func (a *archive) file(name string, perm uint32, data []byte) {
	a.entry(name, 0o100000|perm, data)
}

// copy adds a file of the host.
func (a *archive) copy(name string, perm uint32, from string) {
	data, err := os.ReadFile(from)
	if err != nil && a.err == nil {
		a.err = err
	}
	a.file(name, perm, data)
}

func (a *archive) entry(name string, mode uint32, data []byte) {
	if a.err != nil {
		return
	}
	a.inode++
	// magic ino mode uid gid nlink mtime size devmajor devminor rdevmajor rdevminor namesize check
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	a.write([]byte(header + name + "\x00"))
	a.pad(len(header) + len(name) + 1)
	a.write(data)
	a.pad(len(data))
}

func (a *archive) pad(n int) { a.write(make([]byte, (4-n%4)%4)) }

func (a *archive) write(b []byte) {
	if a.err == nil {
		_, a.err = a.out.Write(b)
	}
}

func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, nil)
	if a.err != nil {
		return a.err
	}
	return a.out.Close()
}
