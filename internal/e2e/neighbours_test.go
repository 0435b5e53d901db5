package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/lab"
)

const (
	theirProgram = "/sys/fs/bpf/slicelb-e2e-theirs"
	theirCount   = theirProgram + "-count"
	refusedPort  = 7003
)

// playTheirs pins a program for connect4 that counts what it sees, and refuses
// one port: what somebody else would give to BPFProgram=.
func playTheirs([]string) int {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return fail(err)
	}
	const userPort = 24 // of struct bpf_sock_addr
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "theirs", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "look"),
			asm.Mov.Imm(asm.R1, 1),
			asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
			asm.LoadMem(asm.R1, asm.R6, userPort, asm.Word).WithSymbol("look"),
			asm.Mov.Imm(asm.R0, 0),
			asm.JEq.Imm(asm.R1, refusedPort>>8|refusedPort&0xff<<8, "out"),
			asm.Mov.Imm(asm.R0, 1),
			asm.Return().WithSymbol("out"),
		},
	})
	if err != nil {
		return fail(err)
	}
	for path, what := range map[string]interface{ Pin(string) error }{theirProgram: p, theirCount: m} {
		if err := what.Pin(path); err != nil {
			return fail(err)
		}
	}
	return 0
}

// playHooks prints what hangs at a cgroup, and what runs for it, a line for each
// hook that has any: hooks PATH. Beside programs it prints the flags, 2 being
// BPF_F_ALLOW_MULTI.
func playHooks(args []string) int {
	dir, err := os.Open(filepath.Join(lab.CgroupRoot, args[0]))
	if err != nil {
		return fail(err)
	}
	defer dir.Close()
	for _, hook := range []struct {
		name string
		typ  ebpf.AttachType
	}{
		{"connect4", ebpf.AttachCGroupInet4Connect}, {"egress", ebpf.AttachCGroupInetEgress}, {"ingress", ebpf.AttachCGroupInetIngress},
		{"bind4", ebpf.AttachCGroupInet4Bind},
	} {
		for _, effective := range []uint32{0, unix.BPF_F_QUERY_EFFECTIVE} {
			r, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: hook.typ, QueryFlags: effective})
			if err != nil {
				return fail(fmt.Errorf("%s: %w", hook.name, err))
			}
			if len(r.Programs) == 0 {
				continue
			}
			fmt.Print(hook.name, []string{" at", " for"}[effective])
			for _, p := range r.Programs {
				fmt.Print(" ", p.ID)
			}
			fmt.Println()
		}
	}
	return 0
}

// playTheirCount prints what their program has seen.
func playTheirCount([]string) int {
	m, err := ebpf.LoadPinnedMap(theirCount, nil)
	if err != nil {
		return fail(err)
	}
	var n uint64
	if err := m.Lookup(uint32(0), &n); err != nil {
		return fail(err)
	}
	fmt.Println(n)
	return 0
}

// What systemd hangs on a unit for IPAddressDeny=, BPFProgram= and SocketBindDeny=
// runs beside slicelb's, whoever came first: neither takes the other's place, and
// what theirs refuses is refused, and counted by nobody here. Packets carry the
// backend's address, so that is what IPAddressDeny= sees.
// fault F26, edge D43, edge D44, edge D46
func TestNeighbours(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(strings.Replace(oldTOML, "clients = [\"web\"]\n", "", 1) + `
[vip.refused]
frontends = ["10.96.0.12:7003"]
backend = [{ address = "127.0.0.1:7001" }]
`)
	h.run("theirs")
	t.Cleanup(func() { h.Run(context.Background(), "rm", "-f", theirProgram, theirCount) })
	services := map[string]string{
		"past.service":   "IPAddressDeny=10.96.0.0/16",
		"packet.service": "IPAddressDeny=127.0.0.1",
		"theirs.service": "BPFProgram=connect4:" + theirProgram,
		"all.service":    "BPFProgram=connect4:" + theirProgram + "\nIPAddressDeny=any\nIPAddressAllow=127.0.0.1\nSocketBindDeny=ipv4:tcp:4444",
	}
	begin := func() {
		t.Helper()
		for name, lines := range services {
			h.write("/etc/systemd/system/"+name, "[Service]\nSlice=web.slice\nExecStart=/bin/sleep infinity\n"+lines+"\n")
		}
		h.must("systemctl", "daemon-reload")
		for name := range services {
			h.must("systemctl", "restart", name)
		}
	}
	end := func() {
		for name := range services {
			h.Run(context.Background(), "systemctl", "stop", name)
		}
	}
	t.Cleanup(func() {
		end()
		for name := range services {
			h.Run(context.Background(), "rm", "-f", "/etc/systemd/system/"+name)
		}
		h.Run(context.Background(), "systemctl", "daemon-reload")
	})
	hooks := func(name string) map[string][]string {
		t.Helper()
		out := map[string][]string{}
		for line := range strings.Lines(h.run("hooks", "/web.slice/"+name)) {
			f := strings.Fields(line)
			slices.Sort(f[2:])
			out[f[0]+" "+f[1]] = f[2:]
		}
		return out
	}
	counted := func(vip string) (c uint64) {
		t.Helper()
		for _, v := range h.healthy().VIPs {
			if v.Name == vip {
				c = v.Counters.Connects + v.Counters.Flows + v.Counters.Passed + v.Counters.Rejected + v.Counters.Denied
			}
		}
		return c
	}
	seen := func() string { t.Helper(); return strings.TrimSpace(h.run("theirs-count")) }
	works := func() {
		t.Helper()
		// A filter of the VIP's network sees none of its packets; one of the
		// backend's address sees all.
		if got := h.ask("/web.slice/past.service"); strings.Trim(got, "0127.: ") != "" {
			t.Errorf("past IPAddressDeny= of the VIP: %s", got)
		}
		h.dials("/web.slice/packet.service", map[string]string{"udp " + vip: "ok", "sendto " + vip: "EPERM"})
		// Theirs and ours see the same call, theirs first.
		for _, name := range []string{"theirs.service", "all.service"} {
			theirs, db, refused := seen(), counted("db"), counted("refused")
			h.dials("/web.slice/"+name, map[string]string{"tcp " + vip: "ok"})
			if now := seen(); now == theirs {
				t.Errorf("%s: their program did not run", name)
			}
			if now := counted("db"); now != db+1 {
				t.Errorf("%s: %d calls are counted, of 1", name, now-db)
			}
			h.dials("/web.slice/"+name, map[string]string{"tcp 10.96.0.12:7003": "EPERM"})
			if now := counted("refused"); now != refused {
				t.Errorf("%s: what their program refused is counted", name)
			}
		}
	}

	// They are there, then slicelb comes, is restarted, and goes.
	begin()
	before := map[string]map[string][]string{}
	for name := range services {
		before[name] = hooks(name)
	}
	if len(before["theirs.service"]["connect4 at"]) != 1 || len(before["packet.service"]["egress at"]) == 0 {
		t.Fatalf("systemd hung nothing on the units: %v", before)
	}
	same := func(when string) {
		t.Helper()
		for name := range services {
			now := hooks(name)
			for hook, programs := range before[name] {
				if strings.HasSuffix(hook, " at") && !slices.Equal(programs, now[hook]) {
					t.Errorf("%s: %s: %s is %v, was %v", when, name, hook, now[hook], programs)
				}
			}
		}
	}
	h.start()
	h.healthy()
	same("after the start")
	if got := hooks("theirs.service")["connect4 for"]; len(got) != len(before["theirs.service"]["connect4 for"])+1 {
		t.Errorf("for connect4 run %v, without slicelb %v", got, before["theirs.service"]["connect4 for"])
	}
	works()
	h.must("systemctl", "restart", unit)
	h.healthy()
	same("after a restart")
	works()

	// slicelb is there, then they come.
	ours := func() []string { return hooks("..")["connect4 at"] } // what hangs at the root
	root := ours()
	end()
	begin()
	if now := ours(); !slices.Equal(now, root) {
		t.Errorf("at the root hangs %v, hung %v", now, root)
	}
	works()
	for name := range services {
		before[name] = hooks(name)
	}
	h.must("systemctl", "stop", unit)
	same("after the stop")
	if got := hooks("theirs.service")["connect4 for"]; len(got) != len(before["theirs.service"]["connect4 for"])-1 {
		t.Errorf("after the stop run %v, before it %v", got, before["theirs.service"]["connect4 for"])
	}
	h.dials("/web.slice/theirs.service", map[string]string{"tcp 127.0.0.1:7001": "ok", "tcp 127.0.0.1:7003": "EPERM"})
}
