package e2e

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// busyboxImage is what docs/podman.md's containers are made from. The lab has
// no registry: the image is made here.
const busyboxImage = "docker.io/library/busybox:stable"

// podman makes Podman usable in the lab, and makes the image.
func (h *host) podman() {
	h.t.Helper()
	h.needs("podman")
	h.needs("crun")
	// What a lab's kernel and file systems need: no layers on an overlay, and
	// no device filter, for which crun wants CAP_SYS_RESOURCE.
	const wrapper = `#!/bin/sh
verb="$1"; shift
case "$verb" in
run) set -- run --privileged --pids-limit=-1 "$@" ;;
*) set -- "$verb" "$@" ;;
esac
exec /usr/bin/podman.real --storage-driver vfs --runtime crun "$@"
`
	h.must("sh", "-c", "test -e /usr/bin/podman.real || mv /usr/bin/podman /usr/bin/podman.real")
	h.t.Cleanup(func() { h.Run(context.Background(), "mv", "/usr/bin/podman.real", "/usr/bin/podman") })
	if err := h.WriteFile("/usr/bin/podman", []byte(wrapper), 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.must("sh", "-c", `set -e
rm -rf /tmp/image; mkdir -p /tmp/image/bin /tmp/image/etc /tmp/image/www /tmp/image/tmp
cp "$(command -v busybox)" /tmp/image/bin/busybox
for name in sh httpd wget sleep cat; do ln -s busybox /tmp/image/bin/$name; done
tar -C /tmp/image -cf /tmp/image.tar .
podman import --quiet /tmp/image.tar `+busyboxImage)
}

// docs/podman.md, by the real Podman: two containers in a slice behind one VIP,
// a caller in another, policy, and a rolling restart without a lost request.
//
// edge D23
func TestPodmanPage(t *testing.T) {
	h := install(t)
	h.needs("curl")
	h.podman()
	h.configure("")
	h.start()
	guide := h.follow("../../docs/podman.md")
	t.Cleanup(func() {
		for _, args := range [][]string{{"systemctl", "disable", "--now", "shop@8081", "shop@8082"}, {"podman", "rm", "--all", "--force"},
			{"rm", "-rf", "/etc/systemd/system/shop@.service", "/etc/slicelb/conf.d"}, {"systemctl", "daemon-reload"}} {
			h.Run(context.Background(), args[0], args[1:]...)
		}
	})
	outputs := guide.section("Two containers, one address")
	if got := outputs[len(outputs)-2]; !strings.Contains(got, "hello from the shop") {
		t.Fatalf("the caller gets %q", got)
	}
	if got := h.must("systemctl", "show", "--property=ControlGroup", "--value", "shop.slice"); got != "/shop.slice" {
		t.Errorf("shop.slice is at %s", got)
	}
	if found := h.must("find", "/sys/fs/cgroup/shop.slice", "-name", "libpod-*.scope"); strings.Count(found, "libpod-") < 2 {
		t.Errorf("the containers' cgroups are not in shop.slice: %s", found)
	}
	// The VIP is for front.slice alone.
	if code, out := h.exit("podman", "run", "--rm", "--network=host", "--cgroup-parent=other.slice", busyboxImage, "wget", "-q", "-O", "-", "http://10.96.0.90/"); code == 0 {
		t.Errorf("a container in another slice gets %q", out)
	}

	// Policy: by the VIP, from front.slice, and in no other way.
	outputs = guide.section("Who may")
	if got := outputs[1]; !strings.Contains(got, "hello from the shop") {
		t.Errorf("with policy the caller gets %q", got)
	}
	if got := outputs[2]; !strings.Contains(got, "Operation not permitted") {
		t.Errorf("a call to the container's own address: %q", got)
	}
	for _, parent := range []string{"other.slice", "shop.slice"} {
		if code, out := h.exit("podman", "run", "--rm", "--network=host", "--cgroup-parent="+parent, busyboxImage, "wget", "-q", "-O", "-", "http://10.96.0.90/"); code == 0 || !strings.Contains(out, "Operation not permitted") {
			t.Errorf("a container in %s: exit %d, %s", parent, code, out)
		}
	}
	if got := outputs[3]; !strings.Contains(got, "front") || !strings.Contains(got, "127.0.0.1:8081") {
		t.Errorf("observe says\n%s", got)
	}

	// A container that asks without pause, while the others are restarted.
	const ask = `while ! test -e /run/asker/stop; do
	if wget -q -O /dev/null http://10.96.0.90/; then echo answered; else echo lost; fi
done`
	h.must("mkdir", "-p", "/run/asker")
	asker := h.Command(context.Background(), "podman", "run", "--rm", "--name=asker", "--network=host", "--cgroup-parent=front.slice",
		"--volume=/run/asker:/run/asker", busyboxImage, "sh", "-c", ask)
	out := &watched{grown: make(chan struct{}, 1)}
	asker.Stdout, asker.Stderr = out, out
	if err := asker.Start(); err != nil {
		t.Fatal(err)
	}
	count := func(word string) int {
		out.mu.Lock()
		defer out.mu.Unlock()
		return strings.Count(out.text.String(), word+"\n")
	}
	stop := func() { h.Run(context.Background(), "touch", "/run/asker/stop"); asker.Wait() }
	defer stop()
	h.eventually(30*time.Second, "requests are answered", func() bool { return count("answered") > 20 })
	pids := func() string {
		return h.must("systemctl", "show", "--property=MainPID", "--value", "shop@8081", "shop@8082")
	}
	before, asked := pids(), count("answered")
	guide.section("A rolling restart")
	if after := pids(); after == before {
		t.Errorf("nothing was restarted: %s", after)
	}
	during := count("answered")
	h.eventually(30*time.Second, "requests go on", func() bool { return count("answered") > during+20 })
	stop()
	if lost := count("lost"); lost > 0 {
		t.Errorf("%d of %d requests were lost:\n%s", lost, lost+count("answered"), out.text.String())
	}
	t.Logf("%d requests answered, %d of them during the restarts, %d lost", count("answered"), during-asked, count("lost"))
	if got := h.must("slicelb", "backend", "list", "--vip", "shop", "--no-headers"); strings.Count(got, "active") != 2 {
		t.Errorf("not all backends are back:\n%s", got)
	}
}

// Where Podman has Quadlet, the guide's .container makes a unit in the slice.
func TestQuadlet(t *testing.T) {
	const generator = "/usr/lib/systemd/system-generators/podman-system-generator"
	if _, err := os.Stat(generator); err != nil {
		t.Skip("no Quadlet here, it comes with Podman 4.4: ", err)
	}
	for _, name := range []string{"shop@.container", "web.container"} {
		dir := t.TempDir()
		text, err := os.ReadFile("../../packaging/examples/podman/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/"+name, text, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), generator, "--dryrun")
		cmd.Env = append(os.Environ(), "QUADLET_UNIT_DIRS="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "\nSlice=") || !strings.Contains(string(out), "--cgroups=split") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
