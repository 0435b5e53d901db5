package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
	"github.com/slicelb/slicelb/unitwatch"
)

func newExplain(g *globals) *cobra.Command {
	var (
		out          output
		pid          int
		unit, cgroup string
	)
	cmd := &cobra.Command{
		Use:   "explain [ADDRESS:PORT[/udp]]",
		Short: "Say what a caller's connect to an address gets, and why",
		Long: `Say what a connect from one caller to one address gets, and why: the caller's
cgroup with all above it and which of them decides, the group, which VIP the
address is, and which backends it may reach. Without an address: what the caller
gets of each VIP. The caller is a process, a unit or a cgroup.

The answer is worked out from what the kernel's maps hold, look-up by look-up, as
the kernel would. A process of another user is found only where /proc shows it.`,
		Example: "  slicelb explain 10.96.0.10:5432 --pid 4711\n  slicelb explain --pid 4711\n  slicelb explain '[fd00:96::10]:53/udp' --unit web@1.service\n  slicelb explain 10.96.0.10:5432 --cgroup /web.slice",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return exactly("ADDRESS:PORT")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := g.caller(cmd.Context(), pid, unit, cgroup)
			if err != nil {
				return err
			}
			q := api.Question{Cgroup: path, Process: pid != 0}
			if len(args) == 1 {
				q.Address = args[0]
			}
			x, err := g.client().Explain(cmd.Context(), q)
			if err != nil {
				return err
			}
			if out.format == "json" {
				return printJSON(g.stdout, x)
			}
			return printExplanation(g, &out, x)
		},
	}
	out.flags(cmd)
	cmd.Flags().IntVar(&pid, "pid", 0, "the caller is the process `N`")
	cmd.Flags().StringVar(&unit, "unit", "", "the caller is in the unit `U`")
	cmd.Flags().StringVar(&cgroup, "cgroup", "", "the caller is in the cgroup `PATH`, below the cgroup root")
	return cmd
}

// caller is the cgroup that the flags name. It is resolved here, because the
// daemon's sandbox hides other users' processes from it.
func (g *globals) caller(ctx context.Context, pid int, unit, cgroup string) (string, error) {
	if said := btoi(pid != 0) + btoi(unit != "") + btoi(cgroup != ""); said > 1 {
		return "", usageErrorf("explain: --pid, --unit and --cgroup: only one of them")
	}
	var path string
	var err error
	switch {
	case cgroup != "":
		path = filepath.Clean("/" + cgroup)
	case unit != "":
		path, err = unitCgroup(ctx, unit)
	case pid > 0:
		path, err = pidCgroup(pid)
	case pid < 0:
		err = usageErrorf("--pid %d: want a process id", pid)
	default:
		err = &exitError{
			code: exitUsage, err: errors.New("explain: who is calling?"),
			hint: "name a caller with --pid, --unit or --cgroup",
		}
	}
	if err != nil {
		return "", err
	}
	s, err := g.client().Status(ctx)
	if err != nil {
		return "", err
	}
	root := s.DataPlane.CgroupRoot
	if cgroup != "" {
		if rest, ok := below(path, root); ok {
			path = rest // it was said with the root
		}
		return path, nil
	}
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

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
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

// unitCgroup asks systemd. To list units by a name loads none; to read a property
// of one that is not loaded would.
func unitCgroup(ctx context.Context, unit string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := systemd.NewSystemConnectionContext(ctx)
	if err != nil {
		return "", fmt.Errorf("ask systemd about %s: %w", prose.Foreign(unit), err)
	}
	defer conn.Close()
	// A pattern takes backslashes as they are (FNM_NOESCAPE); nothing else that has a
	// meaning in one can stand in a unit's name.
	loaded, err := conn.ListUnitsByPatternsContext(ctx, nil, []string{unit})
	if err != nil {
		return "", fmt.Errorf("ask systemd about %s: %w", prose.Foreign(unit), err)
	}
	for _, u := range loaded {
		if u.Name != unit {
			continue
		}
		kind := strings.TrimPrefix(filepath.Ext(unit), ".")
		if kind == "" {
			break
		}
		p, err := conn.GetUnitTypePropertyContext(ctx, unit, strings.ToUpper(kind[:1])+kind[1:], "ControlGroup")
		if err != nil {
			return "", fmt.Errorf("ask systemd about %s: %w", prose.Foreign(unit), err)
		}
		if path, ok := p.Value.Value().(string); ok && path != "" {
			return path, nil
		}
		return "", &exitError{code: exitNoObject, err: fmt.Errorf("unit %s has no cgroup: it is %s", prose.Foreign(unit), u.ActiveState)}
	}
	return "", &exitError{code: exitNoObject, err: fmt.Errorf("unit %s: not loaded", prose.Foreign(unit)), hint: "give the whole name, such as web@1.service"}
}

func printExplanation(g *globals, out *output, x *api.Explanation) error {
	tw := tabwriter.NewWriter(g.stdout, 0, 8, 2, ' ', 0)
	if !out.noHeaders {
		fmt.Fprintln(tw, "CGROUP\tID\tKIND\tGROUP\tUNIT\t")
	}
	for _, a := range x.Ancestors {
		id, mark := strconv.FormatUint(a.ID, 10), ""
		if a.ID == 0 {
			id = "gone"
		}
		if a.Decides {
			mark = "<- decides"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", prose.Foreign(a.Path), id, dash(a.Kind), dash(prose.Foreign(a.Group)), dash(prose.Foreign(a.Unit)), mark)
	}
	fmt.Fprintln(tw)
	if err := tw.Flush(); err != nil {
		return err
	}
	for i, s := range x.Steps {
		fmt.Fprintf(tw, "%d.\t%s\t%s\n", i+1, s.Look, s.Found)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(g.stdout)
	if x.Address == "" {
		t := &table{columns: []string{"VIP", "ADDRESS", "ACTION", "REASON"}}
		for _, v := range x.VIPs {
			t.add(v.VIP, v.Address, v.Action, v.Reason)
		}
		return out.print(g.stdout, nil, t)
	}
	fmt.Fprintf(g.stdout, "%s: %s\n", x.Action, x.Reason)
	if len(x.Backends) == 0 {
		return nil
	}
	fmt.Fprintln(g.stdout)
	return out.print(g.stdout, nil, backendTable(x.Backends))
}

// dash stands for what is empty.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
