package page

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/internal/openapi"
)

// callerEnv makes the test binary a caller: "10.96.0.10:5432=20 ..." is whom it
// connects to, and how often a second.
const callerEnv = "SLICELB_PAGE_CALLER"

// callForever connects until its standard input ends.
func callForever() {
	for _, one := range strings.Fields(os.Getenv(callerEnv)) {
		addr, often, _ := strings.Cut(one, "=")
		rate, err := strconv.ParseFloat(often, 64)
		if err != nil {
			panic(err)
		}
		network := "tcp"
		if rest, udp := strings.CutSuffix(addr, "/udp"); udp {
			network, addr = "udp", rest
		}
		go func() {
			for range time.Tick(time.Duration(float64(time.Second) / rate)) {
				if c, err := net.DialTimeout(network, addr, time.Second); err == nil {
					c.Close()
				}
			}
		}()
	}
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// call starts a caller in a cgroup; it ends with the test.
func call(t *testing.T, c *kerneltest.Cgroup, whom string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), callerEnv+"="+whom)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(c.Open(t).Fd()), Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
}

// daemon runs slicelb on a part of the cgroup tree until the test ends. It
// returns a client, the socket, and where the page is.
func daemon(t *testing.T, root *kerneltest.Cgroup, toml string) (client *api.Client, socket, page string) {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "slicelb")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/slicelb/slicelb/cmd/slicelb").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	file := filepath.Join(dir, "slicelb.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "[daemon]\nhttp = %q\n%s", addr, toml), 0o644); err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "api.sock")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "serve", "-c", file, "--cgroup-root", root.Path, "--socket", socket)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the daemon: %v", err)
		}
		log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("its log:\n%s", text)
		}
	})
	client = api.NewClient(socket)
	deadline := time.Now().Add(time.Minute)
	for tick := time.Tick(20 * time.Millisecond); ; <-tick {
		s, err := client.Status(t.Context())
		if err == nil && s.HTTP != "" && s.DataPlane.Attached {
			return client, socket, "http://" + addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("the daemon is not ready: %+v, %v", s, err)
		}
	}
}

// TestDaemon shows a daemon that runs: real maps, real calls, real checks. With
// -shots it takes the documentation's picture: in a network namespace of its own,
// where the backends' addresses are anybody's,
//
//	unshare -n sh -c 'ip link set lo up; go test ./internal/page -run TestDaemon -addresses 192.0.2. -shots DIR'
func TestDaemon(t *testing.T) {
	root := kerneltest.NewCgroup(t)
	at := func(last, port int) string { return fmt.Sprintf("%s%d:%d", *addresses, last, port) }
	for _, a := range []string{at(11, 5432), at(12, 5432), at(13, 5432), at(21, 6379), at(22, 6379), at(31, 8080), at(32, 8080), at(41, 53), at(42, 53)} {
		kerneltest.Serve(t, a, a)
	}
	backends := func(vip string, list ...string) string {
		var b strings.Builder
		for i, a := range list {
			fmt.Fprintf(&b, "[[%s.backend]]\naddress = %q\nweight = %d\n", vip, a, len(list)-i)
		}
		return b.String()
	}
	toml := `
[group.web]
slices = ["web.slice"]
[group.jobs]
slices = ["jobs.slice"]
split = "*.scope"
[group.backup]
slices = ["backup.slice"]
[vip.db]
frontends = ["10.96.0.10:5432"]
clients = ["web", "jobs", "backup"]
[vip.db.health]
type = "tcp"
interval = "500ms"
initial = "up"
` + backends("vip.db", at(11, 5432), at(12, 5432), at(13, 5432)) + `
[vip.cache]
frontends = ["10.96.0.11:6379"]
clients = ["web"]
hidden = "reject"
` + backends("vip.cache", at(21, 6379), at(22, 6379)) + `
[vip.search]
frontends = ["10.96.0.12:80"]
clients = ["web", "jobs"]
[vip.search.health]
type = "tcp"
interval = "500ms"
fall = 2
` + backends("vip.search", at(31, 8080), at(32, 8080), at(33, 8080)) + `
[vip.dns]
frontends = ["10.96.0.53:53/udp", "10.96.0.53:53"]
` + backends("vip.dns", at(41, 53), at(42, 53))
	web := root.Make(t, "web.slice", "web-1.service")
	root.Make(t, "web.slice", "web-2.service")
	jobs := root.Make(t, "jobs.slice", "report.scope")
	root.Make(t, "jobs.slice", "import.scope")
	client, socket, page := daemon(t, root, toml)
	if _, err := client.SetBackend(t.Context(), api.BackendChange{VIP: "db", Address: at(13, 5432), State: "drain"}); err != nil {
		t.Fatal(err)
	}
	call(t, web, "10.96.0.10:5432=40 10.96.0.11:6379=90 10.96.0.12:80=12 10.96.0.53:53/udp=25")
	call(t, jobs, "10.96.0.10:5432=9 10.96.0.11:6379=3 10.96.0.12:80=4 10.96.0.53:53/udp=6")
	call(t, root.Make(t, "other.service"), "10.96.0.53:53/udp=3")

	b := open(t, page+"/")
	b.size(1240, 1000, false)
	for _, want := range []string{
		hasRates,
		`document.querySelectorAll(".node.vip").length === 4`,
		`document.querySelectorAll(".node.group").length === 4`,
		`document.querySelector('[data-key="e web db"] text').textContent.endsWith("/s")`,
		`document.querySelector('[data-key="e jobs cache"]').classList.contains("bad")`,
		`document.querySelector('[data-key="e host dns"] text').textContent.endsWith("/s")`,
		`document.querySelector('.node.group[data-state=pending]').dataset.key === "g backup"`,
		fmt.Sprintf(`document.querySelector('[data-key="b db %s"]').dataset.state === "draining"`, at(13, 5432)),
		fmt.Sprintf(`document.querySelector('[data-key="b search %s"]').dataset.state === "down"`, at(33, 8080)),
	} {
		b.await(want)
	}
	b.quiet()

	resp, err := http.Get(page + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`slicelb_group_calls_total{group="jobs",verdict="rejected",vip="cache"}`,
		fmt.Sprintf(`slicelb_backend_up{backend=%q,vip="search"} 0`, at(33, 8080)),
		fmt.Sprintf(`slicelb_backend_check_up{backend=%q,vip="search"} 0`, at(33, 8080)),
		`slicelb_vip_backends{state="draining",vip="db"} 1`,
		`slicelb_group_anchors_pending{group="backup"} 1`,
		`slicelb_kernel_events_total{event="pairs_full"} 0`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no metric %s in\n%s", want, text)
		}
	}
	// Nobody else's names: of the cgroups that were made here, none.
	for _, name := range []string{"report", "import", "web-1", "other.service", filepath.Base(root.Path)} {
		if strings.Contains(string(text), name) {
			t.Errorf("the metrics have the name %s", name)
		}
	}
	// The document of the API holds for real maps, too.
	doc, err := openapi.Load("../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	for path, target := range map[string]string{
		"/v1/status": "/v1/status", "/v1/vips/{name}": "/v1/vips/db", "/v1/groups/{name}": "/v1/groups/jobs", "/v1/dump": "/v1/dump",
		"/v1/explain": "/v1/explain?address=10.96.0.11:6379&cgroup=/jobs.slice", "/v1/observe": "/v1/observe?last=100",
	} {
		if status, _, err := doc.Fetch(t.Context(), socket, "GET", path, target); err != nil || status != http.StatusOK {
			t.Errorf("%s: status %d, %v", target, status, err)
		}
	}
	if *shots != "" {
		b.await(`performance.now() > 16000`) // the trend wants a past
		b.shot("status-page")
		b.prefer("prefers-color-scheme", "dark")
		b.shot("status-page-dark")
		b.prefer("prefers-color-scheme", "light")
		b.size(390, 844, true)
		b.await(`document.querySelector("#picture svg").viewBox.baseVal.width <= 390`)
		b.shot("status-page-phone")
	}
}
