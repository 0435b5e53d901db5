package lab

import (
	"context"
	"path/filepath"
)

// labUnit tells the daemon that the cgroup root it sees is the one it should
// attach to: it is a lab's, not the hierarchy's, and the daemon wants that said.
const labUnit = `[Service]
ExecStart=
ExecStart=/usr/sbin/slicelb serve --cgroup-root ` + CgroupRoot + `
`

// InstallDaemon puts slicelb into the lab as its packages would on a host:
// the program, its unit and its user. The unit is neither enabled nor started.
// top is the repository's top directory.
func (l *Lab) InstallDaemon(ctx context.Context, binary, top string) error {
	packaging := filepath.Join(top, "packaging")
	if err := l.Install(binary, "/usr/sbin/slicelb", 0o755); err != nil {
		return err
	}
	if err := l.Install(filepath.Join(packaging, "slicelb.service"), "/etc/systemd/system/slicelb.service", 0o644); err != nil {
		return err
	}
	if err := l.Install(filepath.Join(packaging, "sysusers.d/slicelb.conf"), "/etc/sysusers.d/slicelb.conf", 0o644); err != nil {
		return err
	}
	if err := l.WriteFile("/etc/systemd/system/slicelb.service.d/lab.conf", []byte(labUnit), 0o644); err != nil {
		return err
	}
	if _, err := l.Run(ctx, "systemd-sysusers", "/etc/sysusers.d/slicelb.conf"); err != nil {
		return err
	}
	_, err := l.Run(ctx, "systemctl", "daemon-reload")
	return err
}
