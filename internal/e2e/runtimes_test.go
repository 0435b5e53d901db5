package e2e

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
)

// Containers of the real Podman, by both of its runtimes, in each way in which it
// places them: their first act is a connect, and their group is the one that
// docs/runtimes.md says. // edge D23, edge T2
func TestPodmanPlaces(t *testing.T) {
	h := withClients(t)
	h.needs("podman")
	text, err := os.ReadFile("../../packaging/examples/podman/podman.toml")
	if err != nil {
		t.Fatal(err)
	}
	groups, _, ok := strings.Cut(string(text), "[vip.db]")
	if !ok {
		t.Fatal("the example has no VIP")
	}
	www := strings.Replace(clientsTOML, `clients   = ["web"]`, `clients   = ["web", "containers", "apps"]`, 1)
	h.configure(groups + www)
	h.must("systemctl", "reload", unit)
	h.healthy()
	h.podmanImage()

	const id = "[0-9a-f]{64}"
	for _, runtime := range []string{"crun", "runc"} {
		h.needs(runtime)
		inner := map[string]string{"crun": "/container"}[runtime]
		for _, place := range []struct {
			name, args string
			service    bool // with crun alone
			cgroup     string
			group      string
		}{
			{"alone", "", false, "/machine.slice/libpod-" + id + ".scope" + inner, "containers/libpod-" + id + ".scope"},
			{"in a slice", "--cgroup-parent web.slice", false, "/web.slice/libpod-" + id + ".scope" + inner, "web"},
			{"in a pod", "--pod pod", false, "/machine.slice/machine-libpod_pod_" + id + ".slice/libpod-" + id + ".scope" + inner, "containers/libpod-" + id + ".scope"},
			{"split", "--cgroups split", true, "/apps.slice/web.service/libpod-payload-" + id, "apps/web.service"},
		} {
			if place.service && runtime != "crun" {
				continue
			}
			t.Run(runtime+" "+place.name, func(t *testing.T) {
				name := runtime + "-" + strings.ReplaceAll(place.name, " ", "-")
				args := "podman --storage-driver vfs --runtime " + runtime + " run --name " + name +
					" --log-driver k8s-file --privileged --pids-limit=-1 --network host"
				if place.args != "" {
					args += " " + place.args
				}
				argv := append(strings.Fields(args), "client", "/bin/sh", "-c", `printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 10 10.96.0.80 80; sleep 1000`)
				if strings.Contains(place.args, "--pod") {
					h.must("podman", "--storage-driver", "vfs", "--runtime", runtime, "pod", "create", "--name", "pod", "--network", "host",
						"--share", "net", "--infra-image", "client", "--infra-command", "/bin/sleep")
					defer func() {
						if _, err := h.Run(context.Background(), "podman", "--storage-driver", "vfs", "pod", "rm", "--force", "pod"); err != nil {
							t.Logf("clean up: %v", err)
						}
					}()
				}
				defer func() {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					if _, err := h.Run(ctx, "podman", "--storage-driver", "vfs", "rm", "--force", "--time", "0", "--ignore", name); err != nil {
						t.Logf("clean up: %v", err) // the lab goes with all that is in it
					}
					h.Run(ctx, "systemctl", "stop", "web.service") // not before: its shell ignores the signal
				}()
				if place.service {
					h.must("systemd-run", append([]string{"--quiet", "--collect", "--unit=web.service", "--slice=apps.slice", "--property=Delegate=yes"}, argv...)...)
				} else {
					i := len(strings.Fields("podman --storage-driver vfs --runtime x run"))
					argv = append(argv[:i:i], append([]string{"--detach"}, argv[i:]...)...)
					h.must(argv[0], argv[1:]...)
				}
				var pid string
				h.eventually(30*time.Second, "the container runs", func() bool {
					code, out := h.exit("podman", "--storage-driver", "vfs", "inspect", "--format", "{{.State.Pid}}", name)
					pid = strings.TrimSpace(out)
					return code == 0 && pid != "0"
				})
				want := regexp.MustCompile("^" + place.group + "$")
				var x api.Explanation
				h.eventually(15*time.Second, "its group is "+place.group, func() bool {
					x = api.Explanation{}
					if err := json.Unmarshal([]byte(h.must("slicelb", "explain", "--pid", pid, "-o", "json")), &x); err != nil {
						t.Fatal(err)
					}
					return want.MatchString(x.Group)
				})
				if !regexp.MustCompile("^" + place.cgroup + "$").MatchString(x.Cgroup) {
					t.Errorf("it is in %q, want %q", x.Cgroup, place.cgroup)
				}
				t.Logf("%s: %s, by %s", x.Cgroup, x.Group, x.Decided)
				h.eventually(15*time.Second, "its connect was answered", func() bool {
					_, out := h.exit("podman", "--storage-driver", "vfs", "logs", name)
					return strings.Contains(out, page)
				})
			})
		}
	}
}

// Containers and pods of the real Podman, run by a user: that user's systemd places
// them, whose bus nobody of us listens to. The lab's /proc has parts that are hidden, so
// the kernel mounts no other in a user's namespace: they share the lab's processes.
// edge T20
func TestRootlessPodman(t *testing.T) {
	h := withClients(t)
	h.needs("podman")
	h.needs("crun")
	text, err := os.ReadFile("../../packaging/examples/podman/podman.toml")
	if err != nil {
		t.Fatal(err)
	}
	groups, _, _ := strings.Cut(string(text), "[vip.db]")
	h.configure(groups + strings.Replace(clientsTOML, `clients   = ["web"]`, `clients   = ["web", "rootless"]`, 1))
	h.must("systemctl", "reload", unit)
	h.healthy()
	h.podmanImage()

	const user, uid = "rootless-e2e", "4217"
	h.must("useradd", "--uid", uid, "--create-home", "--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0", user) // newuidmap may not be installed
	h.must("install", "-o", user, "/tmp/rootfs.tar", "/home/"+user+"/rootfs.tar")
	h.must("loginctl", "enable-linger", user)
	t.Cleanup(func() {
		for _, args := range [][]string{{"loginctl", "disable-linger", user}, {"systemctl", "stop", "user@" + uid + ".service"}, {"userdel", "--remove", user}} {
			if _, err := h.Run(context.Background(), args[0], args[1:]...); err != nil {
				t.Logf("clean up: %v", err) // the lab goes with all that is in it
			}
		}
	})
	h.eventually(20*time.Second, "the user's bus is there", func() bool {
		code, _ := h.exit("test", "-S", "/run/user/"+uid+"/bus")
		return code == 0
	})
	argv := func(podman string) []string {
		return []string{"-s", "/bin/sh", "-", user, "-c", "export XDG_RUNTIME_DIR=/run/user/" + uid + " DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/" + uid +
			"/bus; exec podman --log-level fatal --storage-driver vfs --runtime crun --cgroup-manager systemd " + podman}
	}
	as := func(podman string) string {
		h.t.Helper()
		return strings.TrimSpace(h.must("su", argv(podman)...))
	}
	as("import --quiet rootfs.tar client")
	t.Cleanup(func() { h.Run(context.Background(), "su", argv("rm --all --force --time 0")...) })
	as("pod create --name pod --network host --share net --infra-image client --infra-command /bin/sleep")
	const id = "[0-9a-f]{64}"
	const top = "/user.slice/user-" + uid + `\.slice/user@` + uid + `\.service/user.slice`
	for name, place := range map[string]struct{ args, cgroup string }{
		"alone":    {"--network host", top + "/libpod-" + id + ".scope/container"},
		"in a pod": {"--pod pod", top + "/user-libpod_pod_" + id + ".slice/libpod-" + id + ".scope/container"},
	} {
		t.Run(name, func(t *testing.T) {
			container := "c-" + strings.ReplaceAll(name, " ", "-")
			as("run --detach --name " + container + " --log-driver k8s-file --pids-limit=-1 --pid host " + place.args +
				` client /bin/sh -c "printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 10 10.96.0.80 80; sleep 1000"`)
			pid := as("inspect --format '{{.State.Pid}}' " + container)
			var x api.Explanation
			h.eventually(15*time.Second, "it has a group of its own", func() bool {
				x = api.Explanation{}
				if err := json.Unmarshal([]byte(h.must("slicelb", "explain", "--pid", pid, "-o", "json")), &x); err != nil {
					t.Fatal(err)
				}
				return regexp.MustCompile("^rootless/libpod-" + id + ".scope$").MatchString(x.Group)
			})
			if !regexp.MustCompile("^" + place.cgroup + "$").MatchString(x.Cgroup) {
				t.Errorf("it is in %q, want %q", x.Cgroup, place.cgroup)
			}
			t.Logf("%s: %s, by %s", x.Cgroup, x.Group, x.Decided)
			h.eventually(15*time.Second, "its connect was answered", func() bool {
				return strings.Contains(as("logs "+container), page)
			})
		})
	}
}

// podmanImage makes an image of a static busybox, "client".
func (h *host) podmanImage() {
	h.t.Helper()
	const rootfs = `set -e
rm -rf /tmp/rootfs; mkdir -p /tmp/rootfs/bin /tmp/rootfs/etc; cp "$(command -v busybox)" /tmp/rootfs/bin/busybox
ln -s busybox /tmp/rootfs/bin/sh; ln -s busybox /tmp/rootfs/bin/nc; ln -s busybox /tmp/rootfs/bin/sleep
tar -C /tmp/rootfs -cf /tmp/rootfs.tar .
podman --storage-driver vfs import --quiet /tmp/rootfs.tar client`
	h.must("sh", "-c", rootfs)
}
