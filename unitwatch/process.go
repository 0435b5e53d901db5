package unitwatch

import (
	"bufio"
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
	f, err := os.Open(filepath.Join(proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return "", fmt.Errorf("process %d: %w", pid, err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if path, ok := strings.CutPrefix(s.Text(), "0::"); ok {
			if strings.HasPrefix(path, "/..") {
				return "", fmt.Errorf("process %d: its cgroup %s is %w", pid, prose.Foreign(path), ErrOutside)
			}
			return path, nil
		}
	}
	return "", fmt.Errorf("process %d: in no cgroup2 hierarchy", pid)
}
