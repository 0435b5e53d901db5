package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// hierarchyRootInode is the inode of every cgroup2 hierarchy's own root.
const hierarchyRootInode = 1

// cgroupRoot is the folder below which everything happens.
type cgroupRoot struct {
	Path       string
	Namespaced bool // it is not the hierarchy's own root
}

// findCgroupRoot takes the folder that was named, or the one where cgroup2 is
// mounted. A host without cgroup2, and a cgroup namespace, which sees a part of
// the tree as if it were the whole, are refused unless a folder was named.
func findCgroupRoot(named string) (cgroupRoot, error) {
	path := named
	if path == "" {
		f, err := os.Open("/proc/self/mountinfo")
		if err != nil {
			return cgroupRoot{}, fmt.Errorf("find cgroup2: %w", err)
		}
		defer f.Close()
		if path, err = cgroup2Mount(f); err != nil {
			return cgroupRoot{}, err
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return cgroupRoot{}, fmt.Errorf("cgroup root %s: %w", path, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return cgroupRoot{}, &exitError{
			code: exitBadConfig, err: fmt.Errorf("cgroup root %s: not in a cgroup2 file system", path),
			hint: "name the folder where cgroup2 is mounted with --cgroup-root",
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return cgroupRoot{}, fmt.Errorf("cgroup root %s: %w", path, err)
	}
	root := cgroupRoot{Path: path, Namespaced: st.Ino != hierarchyRootInode}
	if root.Namespaced && named == "" {
		return cgroupRoot{}, &exitError{
			code: exitBadConfig,
			err:  fmt.Errorf("cgroup root %s: only a part of the cgroup tree is visible here (a cgroup namespace), and what runs outside it would not be served", path),
			hint: "to serve this part alone, name it: --cgroup-root " + path,
		}
	}
	return root, nil
}

// errNoCgroup2 is about hosts with version 1 alone.
var errNoCgroup2 = errors.New("cgroup2 is not mounted: this host has control groups of version 1 only")

// cgroup2Mount finds the mount point in mountinfo: pure or hybrid. The first
// one counts, and one that shows the whole tree before one that does not.
func cgroup2Mount(mountinfo io.Reader) (string, error) {
	part := ""
	s := bufio.NewScanner(mountinfo)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		mount, options, ok := strings.Cut(s.Text(), " - ")
		if !ok || !strings.HasPrefix(options, "cgroup2 ") {
			continue
		}
		f := strings.Fields(mount)
		if len(f) < 5 {
			continue
		}
		point := unescapeMount(f[4])
		if f[3] == "/" {
			return point, nil
		}
		if part == "" {
			part = point
		}
	}
	if err := s.Err(); err != nil {
		return "", fmt.Errorf("read mountinfo: %w", err)
	}
	if part == "" {
		return "", &exitError{
			code: exitBadConfig, err: errNoCgroup2,
			hint: "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 beside it (hybrid)",
		}
	}
	return part, nil
}

// unescapeMount undoes the kernel's octal escapes.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
