package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/lab"
)

// sampled is what somebody saw who looked at the kernel's table all the time.
type sampled struct {
	Cgroups int `json:"cgroups"`
	Passes  int `json:"passes"`
	Missing int `json:"missing"` // no entry, or one without a group
	Changed int `json:"changed"` // another group than at first
}

// playSample looks the cgroups of a directory up in the daemon's table of them,
// again and again, until standard input ends: sample PID PATH. All that are there
// when it begins must have a group; it prints "sampling" when they have.
func playSample(args []string) int {
	table, err := cgroupTable(args[0])
	if err != nil {
		return fail(err)
	}
	defer table.Close()
	runtime.LockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 10); err != nil { // it never waits for anything
		return fail(err)
	}
	var ids []uint64
	err = filepath.WalkDir(filepath.Join(lab.CgroupRoot, args[1]), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return err
		}
		ids = append(ids, st.Ino)
		return nil
	})
	if err != nil {
		return fail(err)
	}
	s := sampled{Cgroups: len(ids)}
	first := make(map[uint64]uint32, len(ids))
	for deadline := time.Now().Add(20 * time.Second); len(first) < len(ids); {
		for _, id := range ids {
			if g := groupIn(table, id); g != 0 {
				first[id] = g
			}
		}
		if time.Now().After(deadline) {
			return fail(fmt.Errorf("%d of %d cgroups have a group", len(first), len(ids)))
		}
	}
	fmt.Println("sampling")
	for done := untilInputEnds(); ; s.Passes++ {
		for _, id := range ids {
			switch groupIn(table, id) {
			case first[id]:
			case 0:
				s.Missing++
			default:
				s.Changed++
			}
		}
		select {
		case <-done:
			json.NewEncoder(os.Stderr).Encode(s)
			return 0
		default:
		}
	}
}

// playCompare waits until the table is what cgroupfs holds: compare PID ANCHOR... .
// Each anchor, a glob, has a group by itself; so has each scope and service that
// lies in it or in its slices; and nothing that is gone has an entry. It prints
// how long that took.
func playCompare(args []string) int {
	table, err := cgroupTable(args[0])
	if err != nil {
		return fail(err)
	}
	defer table.Close()
	begun := time.Now()
	for {
		wrong, err := differences(table, args[1:])
		switch {
		case err != nil:
			return fail(err)
		case len(wrong) == 0:
			fmt.Println(time.Since(begun))
			return 0
		case time.Since(begun) > time.Minute: // a periodic walk may have to come
			return fail(fmt.Errorf("%d differences: %q", len(wrong), wrong[:min(10, len(wrong))]))
		}
	}
}

// playStale gives the daemon PID entries of cgroups that are not there: stale PID COUNT.
// The kernel takes an entry away with its cgroup, but not while its hooks are off.
func playStale(args []string) int {
	table, err := cgroupTable(args[0])
	if err != nil {
		return fail(err)
	}
	defer table.Close()
	n, err := numbers(args[1])
	if err != nil {
		return fail(err)
	}
	for i := range n[0] {
		if err := table.Put(uint64(1)<<40+uint64(i), uint64(1)); err != nil {
			return fail(err)
		}
	}
	return 0
}

func differences(table *ebpf.Map, anchors []string) (wrong []string, err error) {
	entries := map[uint64]bool{}
	var id, word uint64
	for it := table.Iterate(); it.Next(&id, &word); {
		entries[id] = true
	}
	// What came after the listing has an entry that is not in it, and what went
	// after it has one in it: such differences are gone at the next look.
	alive := map[uint64]bool{}
	err = filepath.WalkDir(lab.CgroupRoot, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			if ino, err := inodeOf(path); err == nil {
				alive[ino] = true
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for id := range entries {
		if !alive[id] {
			wrong = append(wrong, fmt.Sprintf("%d has an entry and is gone", id))
		}
	}
	for _, anchor := range anchors {
		found, err := filepath.Glob(filepath.Join(lab.CgroupRoot, anchor))
		if err != nil {
			return nil, err
		}
		for _, top := range found {
			err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.IsDir() {
					return nil // gone meanwhile
				}
				slice := strings.HasSuffix(path, ".slice")
				if path == top || !slice {
					if ino, err := inodeOf(path); err == nil && groupIn(table, ino) == 0 {
						wrong = append(wrong, path+" has no group")
					}
				}
				if !slice {
					return fs.SkipDir
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return wrong, nil
}

// groupIn is the group that a cgroup has by itself, by number; 0 = none. It is
// in the low bits of the word.
func groupIn(table *ebpf.Map, id uint64) uint32 {
	var word uint64
	if err := table.Lookup(id, &word); err != nil {
		return 0
	}
	return uint32(word & (1<<20 - 1))
}

// cgroupTable opens the table of a daemon: other daemons of the machine have one
// of the same name.
func cgroupTable(pid string) (*ebpf.Map, error) {
	dir := "/proc/" + pid + "/fdinfo"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		id := 0
		for s := bufio.NewScanner(f); s.Scan(); {
			if rest, ok := strings.CutPrefix(s.Text(), "map_id:"); ok {
				id, _ = strconv.Atoi(strings.TrimSpace(rest))
			}
		}
		f.Close()
		if id == 0 {
			continue
		}
		m, err := ebpf.NewMapFromID(ebpf.MapID(id))
		if err != nil {
			return nil, err
		}
		if about, err := m.Info(); err == nil && about.Name == "cgroups" {
			return m, nil
		}
		m.Close()
	}
	return nil, errors.New("the daemon has no table of cgroups")
}

// sampler watches the kernel's table for a test.
type sampler struct {
	*running
	h *host
}

// sample begins to watch what lies below a cgroup, which is made if it is not there.
func (h *host) sample(path string) *sampler {
	h.t.Helper()
	h.must("mkdir", "-p", lab.CgroupRoot+path)
	s := &sampler{h.play("/roles", "sample", h.property("MainPID"), path), h}
	ended := false
	h.t.Cleanup(func() {
		if !ended {
			s.stdin.Close()
			s.cmd.Wait()
		}
	})
	h.eventually(30*time.Second, "the table is watched", func() bool {
		if s.cmd.ProcessState == nil && s.out.last() == "" && h.gone(s.running) {
			ended = true
			s.cmd.Wait()
			h.t.Fatalf("sample: %s", s.stderr.Bytes())
		}
		return s.out.last() == "sampling"
	})
	return s
}

// gone reports that a part has ended.
func (h *host) gone(r *running) bool {
	var status unix.Siginfo
	err := unix.Waitid(unix.P_PID, r.cmd.Process.Pid, &status, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && status.Signo != 0
}

// end ends the watch.
func (s *sampler) end() (got sampled) {
	s.h.t.Helper()
	s.stdin.Close()
	s.cmd.Wait()
	if err := json.Unmarshal(s.stderr.Bytes(), &got); err != nil {
		s.h.t.Fatalf("sample: %v\n%s", err, s.stderr.Bytes())
	}
	return got
}

// steady ends the watch: no group was missing or another at any time.
func (s *sampler) steady() sampled {
	s.h.t.Helper()
	got := s.end()
	if got.Missing > 0 || got.Changed > 0 || got.Passes == 0 {
		s.h.t.Errorf("of %d cgroups, looked at %d times each: %d times without a group, %d times with another",
			got.Cgroups, got.Passes, got.Missing, got.Changed)
	}
	s.h.t.Logf("%d cgroups looked up %d times each: none without its group", got.Cgroups, got.Passes)
	return got
}
