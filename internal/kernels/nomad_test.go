package kernels

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nomadVar names a Nomad agent, as for the tests of internal/e2e. In the machine
// there are no libraries: it must be linked statically.
const nomadVar = "SLICELB_TEST_NOMAD"

// The job of docs/nomad.md by a real agent that has cgroup2, with all controllers,
// to itself, which beside v1 it has not: a machine of its own, where slicelb runs
// without systemd. The kernel has the task's scope in the group when it is made,
// and the task's calls go to the backend.
func TestNomad(t *testing.T) {
	agent, cache := os.Getenv(nomadVar), os.Getenv(matrixVar)
	if agent == "" || cache == "" {
		t.Skipf("%s names no agent, or %s no folder for kernels", nomadVar, matrixVar)
	}
	if !static(t, agent) {
		t.Skipf("%s is linked dynamically: build it with CGO_ENABLED=0", agent)
	}
	dir := t.TempDir()
	data := filepath.Join(dir, "testdata")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	goBuild := func(args ...string) {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", args[0], err, out)
		}
	}
	guest := filepath.Join(dir, "guest.test")
	goBuild("test", "-c", "-o", guest, ".")
	goBuild("build", "-trimpath", "-o", filepath.Join(data, "slicelb"), "../../cmd/slicelb")
	copyFile(t, agent, filepath.Join(data, "nomad"), 0o755)
	for from, replace := range map[string]*strings.Replacer{
		"../../packaging/examples/nomad/nomad.toml": strings.NewReplacer(`"192.0.2.11:5432"`, `"127.0.0.1:7001"`, `"192.0.2.12:5432"`, `"127.0.0.1:7002"`),
		"../../packaging/examples/nomad/web.nomad.hcl": strings.NewReplacer(`"/usr/bin/psql"`, `"/bin/sh"`, "count = 2", "count = 1",
			`["--host=10.96.0.10", "--command=select 1"]`, `["-c", "while sleep 1; do wget -q -O - http://10.96.0.10:5432/; done"]`),
	} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		changed := replace.Replace(string(text))
		if changed == string(text) {
			t.Fatalf("%s is not understood any more", from)
		}
		if err := os.WriteFile(filepath.Join(data, filepath.Base(from)), []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	k, err := Find(ctx, "6.12", cache)
	if err != nil {
		t.Fatal(err)
	}
	initramfs := filepath.Join(dir, "initramfs")
	if err := k.Initramfs(ctx, initramfs, []string{guestVar + "=6.12", "CI=true"}, []Program{{
		Name: "nomad", Path: guest, Dir: dir, Args: []string{"-test.v", "-test.run=^TestNomadGuest$", "-test.timeout=12m"},
	}}); err != nil {
		t.Fatal(err)
	}
	console, err := k.Boot(ctx, initramfs)
	if err != nil {
		t.Errorf("%v", err)
	}
	t.Logf("Linux %s:\n%s", k.Release, console)
	for _, r := range parse(console) {
		if r.Verdict != "PASS" {
			t.Errorf("%s: %s", r.Test, r.Verdict)
		}
	}
}

// static says whether a program needs no libraries.
func static(t *testing.T, path string) bool {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What TestNomad has run in its machine.
func TestNomadGuest(t *testing.T) {
	if os.Getenv(guestVar) == "" {
		t.Skip("runs in an emulated machine only")
	}
	const socket = "/run/slicelb.sock"
	var calls atomic.Int64
	for _, addr := range []string{"127.0.0.1:7001", "127.0.0.1:7002"} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			fmt.Fprintln(w, "hello")
		}))
	}
	data, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	slicelb, nomad := filepath.Join(data, "slicelb"), filepath.Join(data, "nomad")
	begin := func(name string, args ...string) *bytes.Buffer {
		out := &bytes.Buffer{}
		cmd := exec.Command(name, args...)
		cmd.Stdout, cmd.Stderr = out, out
		// By itself in a cgroup, as a service is.
		cgroup := filepath.Join("/sys/fs/cgroup", filepath.Base(name))
		if err := os.Mkdir(cgroup, 0o755); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(cgroup, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
			if t.Failed() {
				b := out.Bytes()
				t.Logf("%s:\n%s", filepath.Base(name), b[max(0, len(b)-8000):])
			}
		})
		return out
	}
	ask := func(name string, args ...string) (string, error) {
		out, err := exec.Command(name, args...).CombinedOutput()
		return string(out), err
	}
	eventually := func(what string, ok func() bool) {
		t.Helper()
		deadline := time.Now().Add(4 * time.Minute)
		for tick := time.Tick(500 * time.Millisecond); !ok(); <-tick {
			if time.Now().After(deadline) {
				t.Fatal("not in time: ", what)
			}
		}
	}
	if err := os.WriteFile("/etc/group", []byte("root:x:0:\nnogroup:x:65534:\n"), 0o644); err != nil { // raw_exec looks for it
		t.Fatal(err)
	}
	if err := os.WriteFile("/run/agent.hcl", []byte("client {\n  enabled = true\n  cpu_total_compute = 2000\n  memory_total_mb = 512\n}\nplugin \"raw_exec\" {\n  config {\n    enabled = true\n  }\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	begin(slicelb, "serve", "--socket", socket, "--config", filepath.Join(data, "nomad.toml"))
	eventually("the kernel has the VIP", func() bool {
		out, err := ask(slicelb, "--socket", socket, "explain", "10.96.0.10:5432", "--cgroup", "/")
		return err == nil && !strings.Contains(out, "no frontend")
	})
	begin(nomad, "agent", "-dev", "-config=/run/agent.hcl")
	eventually("the node is ready", func() bool {
		out, err := ask(nomad, "node", "status")
		return err == nil && strings.Contains(out, " ready")
	})
	if out, err := ask(nomad, "job", "run", "-detach", filepath.Join(data, "web.nomad.hcl")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var scope string
	eventually("a process is in the task's scope", func() bool {
		found, _ := filepath.Glob("/sys/fs/cgroup/nomad.slice/*/*.web.scope")
		if len(found) != 1 {
			return false
		}
		scope = strings.TrimPrefix(found[0], "/sys/fs/cgroup")
		procs, err := os.ReadFile(filepath.Join(found[0], "cgroup.procs"))
		return err == nil && len(procs) > 0
	})
	t.Logf("the task is in %s", scope)
	if out, err := ask(slicelb, "--socket", socket, "explain", "10.96.0.10:5432", "--cgroup", scope); err != nil || !strings.Contains(out, "nomad-web") {
		t.Errorf("explain: %v\n%s", err, out)
	}
	eventually("the task's calls reach a backend", func() bool { return calls.Load() > 2 })
	out, err := ask(slicelb, "--socket", socket, "policy", "list", "-o", "json")
	var p struct {
		Calls []struct {
			Group    string `json:"group"`
			Counters struct {
				Connects uint64 `json:"connects"`
			} `json:"counters"`
		} `json:"calls"`
	}
	if err == nil {
		err = json.Unmarshal([]byte(out), &p)
	}
	if err != nil || len(p.Calls) != 1 || p.Calls[0].Group != "nomad-web" || p.Calls[0].Counters.Connects < 3 {
		t.Errorf("who called: %v\n%s", err, out)
	}
	t.Logf("%d calls answered, all of nomad-web", calls.Load())
}
