package fdstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Seal is a memfd with text in it that nobody can change. The caller closes it.
func Seal(name string, text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(text); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(fmt.Errorf("seal: %w", err), f.Close())
	}
	return f, nil
}

// Unseal reads into v, as JSON, what Seal has written: most bytes at most. The
// descriptor stays the caller's; its offset is shared with other processes, so it is
// not used. What is not sealed may change while it is read, and is an error.
func Unseal(fd int, most int64, v any) error {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return fmt.Errorf("seals: %w", err)
	}
	if seals&unix.F_SEAL_WRITE == 0 {
		return errors.New("not sealed")
	}
	text, err := io.ReadAll(io.NewSectionReader(preader(fd), 0, most))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// preader reads a descriptor that it does not own.
type preader int

func (p preader) ReadAt(b []byte, off int64) (int, error) {
	n, err := unix.Pread(int(p), b, off)
	if err == nil && n == 0 && len(b) > 0 {
		err = io.EOF
	}
	return max(n, 0), err
}
