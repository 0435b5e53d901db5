package unitwatch

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/slicelb/slicelb/internal/prose"
)

// ErrOutside means that a cgroup is none that this cgroup namespace shows.
var ErrOutside = errors.New("outside this cgroup namespace")

// CgroupOf reads the cgroup2 path of a process below proc, which is "/proc" but in
// tests. Errors wrap fs.ErrNotExist, fs.ErrPermission or ErrOutside.
func CgroupOf(proc string, pid int) (string, error) {
	f, err := os.Open(filepath.Join(living(filepath.Join(proc, strconv.Itoa(pid))), "cgroup"))
	if err != nil {
		return "", fmt.Errorf("process %d: %w", pid, err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if path, ok := strings.CutPrefix(s.Text(), "0::"); ok {
			if strings.HasPrefix(path, "/..") {
				return "", fmt.Errorf("process %d: its cgroup %s is %w", pid, prose.Foreign(path), ErrOutside)
			}
			return path, nil
		}
	}
	if err := s.Err(); err != nil { // such as of a path that is too long
		return "", fmt.Errorf("process %d: %w", pid, err)
	}
	return "", fmt.Errorf("process %d: in no cgroup2 hierarchy", pid)
}

// living is the folder of a thread that lives, where the first has ended before the
// others: what has ended stays in the cgroup that it ended in, and the rest may be moved.
func living(dir string) string {
	if !ended(dir) {
		return dir
	}
	threads, err := os.ReadDir(filepath.Join(dir, "task"))
	if err != nil {
		return dir
	}
	for _, t := range threads {
		if thread := filepath.Join(dir, "task", t.Name()); !ended(thread) {
			return thread
		}
	}
	return dir
}

// ended reports that a thread has ended and that nobody has asked for its status yet.
func ended(dir string) bool {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return false
	}
	// The name, in brackets, may hold whatever its thread likes.
	state := strings.TrimSpace(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}
