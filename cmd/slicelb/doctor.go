package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/prose"
)

func newDoctor(g *globals) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this host can run slicelb, and what goes past it",
		Long: `Check the kernel, cgroup2, privileges, systemd, and the programs that others have
on the same hooks; say which configured slices may start something before the
VIPs at boot, and what is known to go past slicelb on this host. It changes
nothing. Run it as root: names of other people's programs, and some
checks, need it.

Exit status 0 when nothing is in the way, 1 when something is.`,
		Example: "  sudo slicelb doctor",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := examine(cmd.Context(), g)
			if out.format == "json" {
				if err := printJSON(g.stdout, findings); err != nil {
					return err
				}
			} else if err := printFindings(g, findings); err != nil {
				return err
			}
			for _, f := range findings {
				if f.Verdict == verdictFail {
					return &exitError{code: exitFailed}
				}
			}
			return nil
		},
	}
	out.flags(cmd)
	return cmd
}

// Verdicts of a finding.
const (
	verdictOK   = "ok"
	verdictNote = "note" // works, with a limit
	verdictFail = "fail"
)

// finding is what one check saw.
type finding struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"`
	Text    string `json:"text"`
	Hint    string `json:"hint,omitempty"`
}

func examine(ctx context.Context, g *globals) []finding {
	findings := []finding{kernelVersion(), kernelTypes()}
	root, err := g.findRoot()
	if err != nil {
		var exit *exitError
		hint := ""
		if errors.As(err, &exit) {
			hint = exit.hint
		}
		findings = append(findings, finding{"cgroup2", verdictFail, err.Error(), hint})
	} else {
		f := finding{"cgroup2", verdictOK, "at " + root.Path, ""}
		if root.Namespaced {
			f.Verdict, f.Text = verdictNote, f.Text+": a part of the tree; what runs outside it is not served"
		}
		findings = append(findings, f, othersPrograms(root.Path))
	}
	findings = append(findings, privileges(), serviceManager())
	findings = append(findings, bootOrder(ctx, g)...)
	return append(findings, bypasses("/")...)
}

func kernelVersion() finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return finding{"kernel", verdictFail, err.Error(), ""}
	}
	release := unix.ByteSliceToString(u.Release[:])
	f := finding{"kernel", verdictOK, release, ""}
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		f.Verdict, f.Hint = verdictNote, "the version is not understood; 6.1 is the oldest that is tested"
	} else if major < 6 || major == 6 && minor < 1 {
		f.Verdict, f.Hint = verdictFail, "6.1 is the oldest that is tested"
	}
	return f
}

func kernelTypes() finding {
	if _, err := btf.LoadKernelSpec(); err != nil {
		return finding{"kernel types", verdictFail, "no BTF: " + err.Error(), "use a kernel with CONFIG_DEBUG_INFO_BTF=y"}
	}
	return finding{"kernel types", verdictOK, "BTF is there", ""}
}

// neededCapabilities are what serve uses.
var neededCapabilities = []struct {
	name string
	bit  uint
}{
	{"CAP_BPF", unix.CAP_BPF}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}, {"CAP_PERFMON", unix.CAP_PERFMON},
}

// missingCapabilities are those of neededCapabilities that this process lacks.
func missingCapabilities() ([]string, error) {
	var data [2]unix.CapUserData
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return nil, err
	}
	var missing []string
	for _, c := range neededCapabilities {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	return missing, nil
}

func privileges() finding {
	missing, err := missingCapabilities()
	if err != nil {
		return finding{"privileges", verdictFail, err.Error(), ""}
	}
	if len(missing) > 0 {
		return finding{"privileges", verdictNote, "this process lacks " + strings.Join(missing, ", "),
			"the unit gives them to the daemon; run doctor as root to see everything"}
	}
	return finding{"privileges", verdictOK, "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON", ""}
}

// othersPrograms names what is attached to the hooks at the root. Several
// programs share a hook; one that was attached without the flag for that keeps
// others out.
func othersPrograms(root string) finding {
	f := finding{Check: "programs at the root", Verdict: verdictOK}
	if missing, err := missingCapabilities(); err == nil && len(missing) > 0 {
		// The library takes EPERM for an old kernel's.
		f.Verdict, f.Text, f.Hint = verdictNote, "cannot be listed without "+strings.Join(missing, ", "), "run doctor as root"
		return f
	}
	dir, err := os.Open(root)
	if err != nil {
		f.Verdict, f.Text = verdictNote, err.Error()
		return f
	}
	defer dir.Close()
	var seen []string
	for _, h := range bpf.Hooks {
		result, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: h.Type})
		if err != nil {
			f.Verdict, f.Text, f.Hint = verdictNote, "cannot be listed: "+err.Error(), "run doctor as root"
			return f
		}
		for _, p := range result.Programs {
			seen = append(seen, fmt.Sprintf("%s: %s", h.Name, programName(p.ID)))
		}
	}
	f.Text = "none"
	if len(seen) > 0 {
		f.Text = strings.Join(seen, ", ")
	}
	return f
}

func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return fmt.Sprintf("id %d", id)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return fmt.Sprintf("id %d", id)
	}
	return fmt.Sprintf("%s (id %d)", prose.Foreign(info.Name), id)
}

func serviceManager() finding {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return finding{"systemd", verdictNote, "not the service manager here", "the data plane ends with the daemon; slices are followed in cgroupfs alone"}
	}
	if _, err := os.Stat("/run/dbus/system_bus_socket"); err != nil {
		return finding{"systemd", verdictNote, "running, without a system bus", "slices are followed in cgroupfs alone; install dbus"}
	}
	return finding{"systemd", verdictOK, "running, with a system bus", ""}
}

func printFindings(g *globals, findings []finding) error {
	p := painter{g.colour()}
	tw := tabwriter.NewWriter(g.stdout, 0, 8, 2, ' ', 0)
	for _, f := range findings {
		// Escape sequences count as width, so all verdicts are painted alike.
		verdict := p.paint("0", f.Verdict)
		switch f.Verdict {
		case verdictOK:
			verdict = p.green(f.Verdict)
		case verdictFail:
			verdict = p.red(f.Verdict)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", verdict, f.Check, f.Text)
		if f.Hint != "" {
			fmt.Fprintf(tw, "%s\t\t  %s\n", p.paint("0", ""), f.Hint)
		}
	}
	return tw.Flush()
}
