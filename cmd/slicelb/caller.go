package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
	"github.com/slicelb/slicelb/unitwatch"
)

// caller is the cgroup that the flags name, below the root that the daemon has. It is
// resolved here, because the daemon's sandbox hides other users' processes from it.
func (g *globals) caller(ctx context.Context, pid int, unit, cgroup string) (path, root string, err error) {
	if said := btoi(pid != 0) + btoi(unit != "") + btoi(cgroup != ""); said > 1 {
		return "", "", usageErrorf("explain: --pid, --unit and --cgroup: only one of them")
	}
	switch {
	case cgroup != "":
		path = filepath.Clean("/" + cgroup)
	case unit != "":
		path, err = unitCgroup(ctx, unit)
	case pid != 0:
		path, err = pidCgroup(pid)
	default:
		err = &exitError{
			code: exitUsage, err: errors.New("explain: who is calling?"),
			hint: "name a caller with --pid, --unit or --cgroup",
		}
	}
	if err != nil {
		return "", "", err
	}
	s, err := g.client().Status(ctx)
	if err != nil {
		return "", "", err
	}
	root = s.DataPlane.CgroupRoot
	if cgroup != "" {
		if rest, ok := below(path, root); ok {
			path = rest // it was said with the root
		}
		return path, root, nil
	}
	path, err = servedPath(path, root)
	return path, root, err
}

// idsOf are those of cgroups that the daemon may not see, from the innermost outwards,
// as far as who runs this may see them.
func idsOf(root string, line []api.Ancestor) (ids []uint64) {
	for _, a := range line {
		var st unix.Stat_t
		if !a.Hidden || unix.Lstat(filepath.Join(root, a.Path), &st) != nil {
			break
		}
		ids = append(ids, st.Ino)
	}
	return ids
}

// servedPath is the path of a process's cgroup as the daemon has it, whose root may
// be a part of the tree.
func servedPath(path, root string) (string, error) {
	mount, err := unitwatch.FindRoot()
	var hidden *unitwatch.RootError
	if errors.As(err, &hidden) && hidden.Reason == unitwatch.NotTheRoot {
		mount, err = hidden.Path, nil // paths of processes count from there
	}
	if err != nil {
		return "", err
	}
	part, ok := below(root, mount)
	if !ok {
		return path, nil // mounted elsewhere: there is nothing to compare
	}
	rest, ok := below(path, part)
	if !ok {
		return "", &exitError{code: exitNoObject, err: fmt.Errorf("the caller's cgroup %s is outside %s, which is all that the daemon serves", prose.Foreign(path), root)}
	}
	return rest, nil
}

// below is path as seen from dir, where it lies in it.
func below(path, dir string) (string, bool) {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/"))
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return filepath.Clean("/" + rest), true
}

// pidCgroup is the cgroup2 path of a process.
func pidCgroup(pid int) (string, error) {
	path, err := unitwatch.CgroupOf("/proc", pid)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", &exitError{code: exitNoObject, err: fmt.Errorf("process %d: no such process", pid)}
	case errors.Is(err, fs.ErrPermission):
		return "", &exitError{code: exitNotPermitted, err: fmt.Errorf("process %d: not permitted", pid), hint: "run it as root"}
	case errors.Is(err, unitwatch.ErrOutside):
		return "", &exitError{code: exitNoObject, err: err, hint: "run explain in the namespace of the daemon"}
	}
	return path, err
}

// unitCgroup asks systemd.
func unitCgroup(ctx context.Context, unit string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	path, state, err := unitwatch.AskControlGroup(ctx, unit)
	switch {
	case errors.Is(err, unitwatch.ErrNotLoaded):
		return "", &exitError{code: exitNoObject, err: fmt.Errorf("unit %s: not loaded", prose.Foreign(unit)), hint: "give the whole name, such as web@1.service"}
	case err != nil:
		return "", fmt.Errorf("ask systemd about %s: %w", prose.Foreign(unit), err)
	case path == "":
		return "", &exitError{code: exitNoObject, err: fmt.Errorf("unit %s has no cgroup: it is %s", prose.Foreign(unit), state.Active)}
	}
	return path, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
