package anchor

import (
	"fmt"
	"strings"
)

const maxUnitName = 255

// controllers are the names that systemd keeps free for attribute files: the
// kernel's controllers and its own pseudo-controllers.
var controllers = []string{
	"cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids",
	"bpf-firewall", "bpf-devices", "bpf-foreign", "bpf-socket-bind",
	"bpf-restrict-network-interfaces", "bpf-bind-network-interface",
}

// clashing are the units whose directories have an escape before their names, but for
// those with a dot in what stands before their type, which nobody has.
var clashing = func() (units []string) {
	for _, name := range append([]string{"cgroup"}, controllers...) {
		for _, kind := range []string{"slice", "scope", "service", "socket", "mount", "swap"} {
			units = append(units, name+"."+kind)
		}
	}
	return units
}()

// FromUnit is the path below the cgroup root that systemd gives a slice:
// "a-b.slice" has "/a.slice/a-b.slice", "-.slice" has "/". Names may have
// path.Match patterns in them; a dash within a class separates nothing.
func FromUnit(slice string) (string, error) {
	bad := func(why string) (string, error) {
		return "", fmt.Errorf("slice %q: %s", slice, why)
	}
	if slice == "-.slice" {
		return "/", nil
	}
	stem, ok := strings.CutSuffix(slice, ".slice")
	if !ok {
		return bad(`a unit's name must end in ".slice"; name another cgroup by its absolute path`)
	}
	if stem == "" {
		return bad(`nothing stands before ".slice"`)
	}
	if len(slice) > maxUnitName {
		return bad("longer than 255 bytes")
	}
	for i := 0; i < len(stem); i++ {
		if !unitByte(stem[i]) {
			return bad(fmt.Sprintf("%q cannot stand in a slice's name", stem[i]))
		}
	}
	var path strings.Builder
	last := -1
	for i := 0; i < len(stem); i++ {
		switch stem[i] {
		case '[':
			end := classEnd(stem[i:])
			if end < 0 {
				return bad("a class has no end")
			}
			i += end - 1
		case '-':
			if i == last+1 || i == len(stem)-1 {
				return bad("dashes separate parent and child: none may lead, trail or follow another")
			}
			last = i
			path.WriteString("/" + DirName(stem[:i]+".slice"))
		}
	}
	path.WriteString("/" + DirName(slice))
	return path.String(), nil
}

func unitByte(b byte) bool {
	switch {
	case '0' <= b && b <= '9', 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z':
		return true
	}
	return strings.IndexByte(`:-_.\*?[]^`, b) >= 0
}

// DirName is the name of the directory that systemd makes for a unit: a name
// that could be taken for a control file has "_" before it.
func DirName(unit string) string {
	if clashes(unit) {
		return "_" + unit
	}
	return unit
}

// UnitName undoes DirName.
func UnitName(dir string) string { return strings.TrimPrefix(dir, "_") }

func clashes(name string) bool {
	switch {
	case name == "", name[0] == '_', name[0] == '.',
		name == "notify_on_release", name == "release_agent", name == "tasks",
		strings.HasPrefix(name, "cgroup."):
		return true
	}
	for _, c := range controllers {
		if rest, ok := strings.CutPrefix(name, c); ok && strings.HasPrefix(rest, ".") {
			return true
		}
	}
	return false
}
