package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/slicelb/slicelb/internal/lab"
)

const (
	program  = "/usr/local/bin/slicelb-demo" // this program, inside the lab
	confFile = "/etc/slicelb/slicelb.toml"
	calls    = 400 // to each target
)

var (
	backends = []string{"web@8081", "web@8082", "web@8083", "web@8084"} // the last starts later
	targets  = []string{"tcp:10.96.0.10:80", "udp:10.96.0.10:80", "tcp:[fd00:96::10]:80", "udp:[fd00:96::10]:80"}
)

const backendUnit = `[Unit]
Description=Demo backend on port %i

[Service]
Type=notify
ExecStart=` + program + ` serve web@%i %i
DynamicUser=yes
`

const conf = `[daemon]
http = "127.0.0.1:9781"          # a page of who talks to what, and metrics

[group.shop]
slices = ["shop.slice"]

[group.canary]
slices = ["canary.slice"]

[vip.web]
frontends = ["10.96.0.10:80", "10.96.0.10:80/udp", "[fd00:96::10]:80", "[fd00:96::10]:80/udp"]
clients   = ["shop", "canary"]   # nobody else sees the address ...
hidden    = "reject"             # ... and is told "no route to host"
backend   = [
  { unit = "web@8081.service", address = "127.0.0.1:8081", weight = 2 },
  { unit = "web@8081.service", address = "[::1]:8081", weight = 2 },
  { unit = "web@*.service", address = "127.0.0.1:%i" },   # each that runs
  { unit = "web@*.service", address = "[::1]:%i" },
]

[vip.web.for.canary]             # what canary gets instead
backend = [{ address = "127.0.0.1:8083" }, { address = "[::1]:8083" }]

[[policy.rule]]                  # the backends' own addresses are not for canary
from   = ["canary"]
to     = ["127.0.0.1:8081-8084", "[::1]:8081-8084"]
action = "deny"
`

// demo is one run of the show.
type demo struct {
	ctx context.Context
	out io.Writer
	lab *lab.Lab
}

// show runs the demo from nothing to nothing.
func show(ctx context.Context, out io.Writer, binary, top string) (err error) {
	begin := time.Now()
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("%w: make build first", err)
	}
	d := &demo{ctx: ctx, out: out}
	d.say("Booting a throwaway systemd in namespaces of its own.")
	if d.lab, err = lab.Start(ctx, lab.Options{}); err != nil {
		return err
	}
	defer func() {
		dir := d.lab.CgroupDir()
		if stopErr := d.lab.Stop(); stopErr != nil {
			err = errors.Join(err, stopErr)
		} else if err == nil {
			d.say("The laboratory is gone: its processes, its network, its files and %s.", dir)
			fmt.Fprintf(out, "Took %.0f s.\n", time.Since(begin).Seconds())
		}
	}()
	version, err := d.lab.Run(ctx, "systemctl", "--version")
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(version, "\n")
	fmt.Fprintf(out, "%s is up in %s, after %.1f s.\n", first, d.lab.CgroupDir(), time.Since(begin).Seconds())

	for _, act := range []func() error{
		func() error { return d.startBackends() },
		func() error { return d.startDaemon(binary, top) },
		d.whoGetsWhat, d.refused, d.denied, d.status, d.why, d.drain, d.another, d.restart,
	} {
		if err := act(); err != nil {
			d.journal()
			return err
		}
	}
	return nil
}

// say prints a heading.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "\n== "+format+"\n", args...)
}

// shell prints a command as a person would type it, runs it in the lab, and
// prints what it says.
func (d *demo) shell(name string, args ...string) error {
	fmt.Fprintf(d.out, "# %s\n", strings.Join(append([]string{name}, args...), " "))
	cmd := d.lab.Command(d.ctx, name, args...)
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		fmt.Fprint(d.out, "  ", line)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// journal shows what the daemon said, when the show stops early.
func (d *demo) journal() {
	if d.ctx.Err() == nil {
		d.shell("journalctl", "--unit=slicelb", "--no-pager", "--output=cat", "--lines=40")
	}
}

func (d *demo) startBackends() error {
	d.say("Three backends, as services. Each answers with its name, over TCP and UDP, IPv4 and IPv6.")
	if err := d.lab.Install("/proc/self/exe", program, 0o755); err != nil {
		return err
	}
	if err := d.lab.WriteFile("/etc/systemd/system/web@.service", []byte(backendUnit), 0o644); err != nil {
		return err
	}
	return d.shell("systemctl", "start", backends[0], backends[1], backends[2])
}

func (d *demo) startDaemon(binary, top string) error {
	d.say("slicelb, with its unit and its user. The configuration:")
	if err := d.lab.InstallDaemon(d.ctx, binary, top); err != nil {
		return err
	}
	if err := d.lab.WriteFile(confFile, []byte(conf), 0o644); err != nil {
		return err
	}
	for line := range strings.Lines(conf) {
		fmt.Fprint(d.out, "  ", line)
	}
	fmt.Fprintln(d.out)
	if err := d.shell("slicelb", "check"); err != nil {
		return err
	}
	return d.shell("systemctl", "start", "slicelb")
}

// from runs the demo's client as a service in a slice ("" = in none of ours).
func (d *demo) from(slice string, count int, targets ...string) ([]tally, error) {
	args := []string{"--quiet", "--wait", "--pipe", "--collect"}
	if slice != "" {
		args = append(args, "--slice="+slice)
	}
	args = append(args, program, "call", fmt.Sprint(count))
	out, err := d.lab.Run(d.ctx, "systemd-run", append(args, targets...)...)
	if err != nil {
		return nil, err
	}
	var tallies []tally
	return tallies, json.Unmarshal([]byte(out), &tallies)
}

// table prints who called what, and who answered.
func (d *demo) table(who []string, results [][]tally) {
	const form = "  %-12s  %-22s  %5v  %8v  %8v  %8v  %8v  %s\n"
	fmt.Fprintf(d.out, form, "called from", "target", "calls", backends[0], backends[1], backends[2], backends[3], "other")
	for i, tallies := range results {
		for _, t := range tallies {
			var other []string
			for text, n := range t.Errors {
				other = append(other, fmt.Sprintf("%d: %s", n, text))
			}
			if len(other) == 0 {
				other = []string{"-"}
			}
			network, address, _ := strings.Cut(t.Target, ":")
			fmt.Fprintf(d.out, form, who[i], network+" "+address, t.Calls,
				t.Answers[backends[0]], t.Answers[backends[1]], t.Answers[backends[2]], t.Answers[backends[3]], strings.Join(other, ", "))
		}
	}
}

func (d *demo) whoGetsWhat() error {
	d.say("The same address, called from two slices and from outside of both, %d times each.", calls)
	who := []string{"shop.slice", "canary.slice", "elsewhere"}
	results := make([][]tally, len(who))
	for i, slice := range []string{"shop.slice", "canary.slice", ""} {
		n, on := calls, targets
		if slice == "" {
			n, on = 20, targets[:1]
		}
		var err error
		if results[i], err = d.from(slice, n, on...); err != nil {
			return err
		}
	}
	d.table(who, results)
	fmt.Fprintf(d.out, "  shop: by weight 2:1:1, so about %d, %d, %d. canary: its own backend. elsewhere: refused.\n", calls/2, calls/4, calls/4)

	wrong := 0
	for _, t := range append(results[0], results[1]...) {
		wrong += t.Strange
		if len(t.Errors) > 0 {
			return fmt.Errorf("calls to %s failed: %v", t.Target, t.Errors)
		}
	}
	fmt.Fprintf(d.out, "  Every answer came from the address that was called, as the client sees it: %d of %d did not.\n", wrong, 2*calls*len(targets))
	for _, t := range results[0] {
		for i, b := range backends[:3] {
			if share := calls / 4; t.Answers[b] < share/2 || i > 0 && t.Answers[b] > 2*share {
				return fmt.Errorf("%s: %d of %d calls went to %s", t.Target, t.Answers[b], calls, b)
			}
		}
	}
	for _, t := range results[1] {
		if t.Answers["web@8083"] != calls {
			return fmt.Errorf("%s from canary: %v", t.Target, t.Answers)
		}
	}
	if t := results[2][0]; len(t.Answers) > 0 || wrong > 0 {
		return fmt.Errorf("from elsewhere: %v, %d answers from a strange address", t.Answers, wrong)
	}
	return nil
}

func (d *demo) refused() error {
	d.say("Who was refused: as the daemon keeps it, and as the journal has it.")
	if err := d.shell("slicelb", "observe", "--vip", "web", "--verdict", "rejected", "--lines", "2"); err != nil {
		return err
	}
	if _, err := d.lab.Run(d.ctx, "journalctl", "--sync"); err != nil {
		return err
	}
	return d.shell("journalctl", "--no-pager", "--output=cat", "--lines=1", "SLICELB_VIP=web", "SLICELB_EVENT=rejected")
}

func (d *demo) denied() error {
	d.say("What policy denies: a backend's own address, past the VIP.")
	who := []string{"shop.slice", "canary.slice"}
	results := make([][]tally, len(who))
	for i, slice := range who {
		var err error
		if results[i], err = d.from(slice, 20, "tcp:127.0.0.1:8081"); err != nil {
			return err
		}
	}
	d.table(who, results)
	if t := results[0][0]; t.Answers[backends[0]] != 20 {
		return fmt.Errorf("from shop: %v, %v", t.Answers, t.Errors)
	}
	if t := results[1][0]; len(t.Answers) > 0 {
		return fmt.Errorf("from canary: %v", t.Answers)
	}
	if err := d.shell("slicelb", "observe", "--verdict", "denied", "--lines", "1"); err != nil {
		return err
	}
	return d.shell("slicelb", "policy", "list")
}

func (d *demo) status() error {
	d.say("What the daemon says, and where its page is: inside the laboratory.")
	if err := d.shell("slicelb", "status"); err != nil {
		return err
	}
	fmt.Fprintln(d.out)
	if err := d.shell("slicelb", "backend", "list"); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "  A backend counts what all who may use it sent there: web@8083 has shop's calls and canary's.")
	return nil
}

func (d *demo) why() error {
	d.say("Why a caller gets what it gets, from what the kernel holds.")
	return d.shell("slicelb", "explain", "10.96.0.10:80", "--cgroup", "/canary.slice")
}

// underLoad runs act while a client in shop.slice calls in a loop, and returns
// what its calls came to.
func (d *demo) underLoad(act func() error) ([]tally, error) {
	args := append([]string{"--quiet", "--wait", "--pipe", "--collect", "--unit=load", "--slice=shop.slice", program, "call", "0"}, targets...)
	load := d.lab.Command(d.ctx, "systemd-run", args...)
	var said bytes.Buffer
	load.Stderr = &said
	stdout, err := load.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := load.Start(); err != nil {
		return nil, err
	}
	out := bufio.NewReader(stdout)
	if line, err := out.ReadString('\n'); line != begun {
		err = errors.Join(err, load.Wait())
		return nil, fmt.Errorf("the client said %q: %w: %s", line, err, said.String())
	}
	err = act()
	_, stopErr := d.lab.Run(d.ctx, "systemctl", "kill", "--signal=SIGTERM", "load.service")
	var tallies []tally
	jsonErr := json.NewDecoder(out).Decode(&tallies)
	return tallies, errors.Join(err, stopErr, jsonErr, load.Wait())
}

// unharmed prints the sum of calls under load and fails if one failed.
func (d *demo) unharmed(tallies []tally) error {
	all, failed := 0, 0
	for _, t := range tallies {
		all += t.Calls
		for _, n := range t.Errors {
			failed += n
		}
	}
	fmt.Fprintf(d.out, "  Meanwhile shop.slice made %d calls; %d failed.\n", all, failed)
	if failed > 0 || all == 0 {
		return fmt.Errorf("under load: %+v", tallies)
	}
	return nil
}

// after has shop.slice call, and fails where an answer came from somebody who
// is not to answer, or did not come from somebody who is.
func (d *demo) after(must, mustNot string) error {
	after, err := d.from("shop.slice", calls, targets...)
	if err != nil {
		return err
	}
	d.table([]string{"shop.slice"}, [][]tally{after})
	for _, t := range after {
		if t.Answers[mustNot] != 0 || t.Answers[must] == 0 || len(t.Errors) != 0 {
			return fmt.Errorf("%s: %v, %v", t.Target, t.Answers, t.Errors)
		}
	}
	return nil
}

func (d *demo) drain() error {
	d.say("web@8082 is to stop: it gets nothing new, what it has ends, then it stops. Clients go on calling.")
	load, err := d.underLoad(func() error {
		if err := d.shell("slicelb", "backend", "drain", "--unit", "web@8082.service", "--wait", "--timeout", "15s"); err != nil {
			return err
		}
		if err := d.shell("slicelb", "vip", "show", "web"); err != nil {
			return err
		}
		return d.shell("systemctl", "stop", "web@8082")
	})
	if err != nil {
		return err
	}
	if err := d.unharmed(load); err != nil {
		return err
	}
	return d.after("web@8081", "web@8082")
}

func (d *demo) another() error {
	d.say("web@8084 is started: a backend, with no change of the configuration. Clients go on calling.")
	load, err := d.underLoad(func() error {
		if err := d.shell("systemctl", "start", "web@8084"); err != nil {
			return err
		}
		return d.awaitBackend("8084")
	})
	if err != nil {
		return err
	}
	if err := d.unharmed(load); err != nil {
		return err
	}
	return d.after("web@8084", "web@8082")
}

// awaitBackend waits until the daemon has a backend on a port, in both families.
func (d *demo) awaitBackend(port string) error {
	ctx, cancel := context.WithTimeout(d.ctx, 15*time.Second)
	defer cancel()
	for {
		out, err := d.lab.Run(ctx, "slicelb", "backend", "list", "--no-headers")
		if err != nil {
			return err
		}
		n := 0
		for line := range strings.Lines(out) {
			if strings.Contains(line, ":"+port) && strings.Contains(line, "active") {
				n++
			}
		}
		if n == 2 {
			return nil
		}
	}
}

func (d *demo) restart() error {
	d.say("The daemon is killed and restarted. systemd keeps what is in the kernel; clients go on calling.")
	load, err := d.underLoad(func() error {
		if err := d.shell("systemctl", "kill", "--signal=SIGKILL", "slicelb"); err != nil {
			return err
		}
		return d.awaitDaemon()
	})
	if err != nil {
		return err
	}
	if err := d.unharmed(load); err != nil {
		return err
	}
	return d.shell("systemctl", "show", "--property=NRestarts,NFileDescriptorStore,StatusText", "slicelb")
}

// awaitDaemon waits until the daemon is up for the second time.
func (d *demo) awaitDaemon() error {
	ctx, cancel := context.WithTimeout(d.ctx, 15*time.Second)
	defer cancel()
	for {
		out, err := d.lab.Run(ctx, "systemctl", "show", "--property=ActiveState,NRestarts", "slicelb")
		if err != nil {
			return err
		}
		if strings.Contains(out, "NRestarts=1\n") && strings.Contains(out, "ActiveState=active\n") {
			return nil
		}
	}
}
