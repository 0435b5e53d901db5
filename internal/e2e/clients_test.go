package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clientsTOML: a web server and a name server behind VIPs, for web.slice.
const clientsTOML = `[group.web]
slices = ["web.slice"]

[vip.www]
frontends = ["10.96.0.80:80", "[fd00:96::80]:80"]
clients   = ["web"]
[[vip.www.backend]]
address = "127.0.0.1:8080"
[[vip.www.backend]]
address = "[::1]:8080"

[vip.dns]
frontends = ["10.96.0.53:53/udp", "10.96.0.53:53"]
clients   = ["web"]
[[vip.dns.backend]]
address = "127.0.0.1:5353"
`

const (
	page   = "hello from behind the VIP"
	answer = "192.0.2.80" // of the name server, for web.example
)

// withClients starts the daemon and the two servers.
func withClients(t *testing.T) *host {
	t.Helper()
	h := install(t)
	h.configure(clientsTOML)
	h.start()
	if err := h.WriteFile("/srv/www/index.html", []byte(page+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.service("e2e-www", "busybox", "httpd", "-f", "-p", "[::]:8080", "-h", "/srv/www")
	h.service("e2e-dns", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
		"--pid-file", "--port=5353", "--listen-address=127.0.0.1", "--bind-interfaces", "--address=/web.example/"+answer, "--address=/web.example/2001:db8::80")
	h.eventually(10*time.Second, "the servers listen", func() bool {
		out := h.must("ss", "-Hlntu")
		return strings.Contains(out, ":8080 ") && strings.Contains(out, ":5353 ")
	})
	return h
}

// service runs a program as a service until the test ends.
func (h *host) service(name string, argv ...string) {
	h.t.Helper()
	h.needs(argv[0])
	h.must("systemd-run", append([]string{"--quiet", "--collect", "--unit=" + name, "--"}, argv...)...)
	h.t.Cleanup(func() { h.Run(context.Background(), "systemctl", "stop", name) })
}

// needs skips a test where a program is not installed; in CI it fails.
func (h *host) needs(program string) {
	h.t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		h.t.Fatalf("%s is not installed", program)
	}
	h.t.Skipf("%s is not installed", program)
}

// inWeb runs a command in a scope of its own in web.slice.
func (h *host) inWeb(argv ...string) string {
	h.t.Helper()
	h.needs(argv[0])
	return h.must("systemd-run", append([]string{"--quiet", "--scope", "--collect", "--slice=web.slice", "--"}, argv...)...)
}

func TestCurl(t *testing.T) {
	h := withClients(t)
	for _, url := range []string{
		"http://10.96.0.80/", "http://[fd00:96::80]/",
		"http://[::ffff:10.96.0.80]/", // an IPv6 socket, an IPv4 VIP
	} {
		if got := h.inWeb("curl", "--silent", "--show-error", "--max-time", "10", url); got != page {
			t.Errorf("%s: %q", url, got)
		}
		if _, err := h.Run(t.Context(), "curl", "--silent", "--max-time", "10", url); err == nil {
			t.Errorf("%s answered a caller outside web.slice", url)
		}
	}
	// Many at once, over kept connections.
	got := h.inWeb("curl", "--silent", "--show-error", "--max-time", "20", "--parallel", "http://10.96.0.80/?[1-50]")
	if n := strings.Count(got, page); n != 50 {
		t.Errorf("%d of 50 parallel requests answered", n)
	}
}

// Resolvers check who answers: by a connected socket (busybox, glibc, which
// sends both its questions with sendmmsg) or by comparing addresses (musl).
// edge D3
func TestResolvers(t *testing.T) {
	h := withClients(t)
	if got := h.inWeb("busybox", "nslookup", "web.example", "10.96.0.53"); !strings.Contains(got, answer) {
		t.Errorf("busybox nslookup: %s", got)
	}
	for _, cc := range [][]string{{"gcc"}, {"musl-gcc", "-static"}} {
		h.needs(cc[0])
		program := filepath.Join(t.TempDir(), "resolve")
		args := append(cc[1:], "-o", program, "testdata/resolve.c")
		if out, err := exec.Command(cc[0], args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cc[0], err, out)
		}
		resolve := "/usr/local/bin/resolve-" + cc[0]
		if err := h.Install(program, resolve, 0o755); err != nil {
			t.Fatal(err)
		}
		// use-vc: glibc asks over TCP, as for a long answer; musl knows no such option.
		for _, options := range []string{"", "options use-vc\n"} {
			if err := h.WriteFile("/etc/resolv.conf", []byte("nameserver 10.96.0.53\n"+options), 0o644); err != nil {
				t.Fatal(err)
			}
			if got := h.must("systemd-run", "--quiet", "--scope", "--collect", "--slice=web.slice", resolve, "web.example"); got != answer {
				t.Errorf("built with %s, %q: %s", cc[0], options, got)
			}
		}
	}
	if s := h.healthy(); s.VIPs[0].Counters.Connects+s.VIPs[0].Counters.Flows == 0 {
		t.Errorf("the VIP counted nothing: %+v", s.VIPs[0])
	}
}

// A container whose cgroup lies in a configured slice is in its group, however
// deep the runtime puts the process. // edge D23
func TestPodman(t *testing.T) {
	h := withClients(t)
	h.needs("podman")
	h.needs("crun")
	h.podmanImage()
	run := func(parent, script string) (int, string) {
		return h.exit("podman", "--storage-driver", "vfs", "--runtime", "crun", "run", "--rm", "--privileged", "--pids-limit=-1",
			"--network", "host", "--cgroup-parent", parent, "client", "/bin/sh", "-c", script)
	}
	const get = `printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 10 10.96.0.80 80`
	if code, out := run("web.slice", get); code != 0 || !strings.Contains(out, page) {
		t.Errorf("in web.slice: exit %d, %s", code, out)
	}
	if code, out := run("other.slice", get); code == 0 {
		t.Errorf("in other.slice: %s", out)
	}
}
