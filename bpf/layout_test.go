package bpf

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// fingerprints of what a process may find that takes over another's data plane,
// by SLB_LAYOUT.
var fingerprints = map[int]string{
	1: "8533189141fbd072",
}

// What two versions may read of each other is what it was, or has another number.
// // edge D41
func TestLayout(t *testing.T) {
	api, err := os.ReadFile("api.h")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("#define SLB_LAYOUT %d\n", layout); !strings.Contains(string(api), want) {
		t.Fatalf("api.h does not say %q", want)
	}
	sum := sha256.Sum256([]byte(describeLayout(t, string(api))))
	if got, want := fmt.Sprintf("%x", sum[:8]), fingerprints[layout]; got != want {
		t.Errorf(`the maps, what lies in them or the bits of a word are others than layout %d's.
Raise SLB_LAYOUT in api.h and layout in store.go, and put the new fingerprint here:
	%d: %q
(Where layout %d is in no release yet, or names alone have changed: the fingerprint is enough.)`,
			layout, layout+1, got, layout)
	}
}

// describeLayout writes down every map's kind and what lies in it, and how api.h
// takes words apart. The globals are a map too, among them the pointer slb_types,
// which leads to the structs and enums that are in no other.
func describeLayout(t *testing.T, api string) string {
	spec, err := loadSlicelb()
	if err != nil {
		t.Fatal(err)
	}
	sized := spec.Copy()
	if err := size(sized, Options{UDPFlows: 1, Capacities: Limits{1, 1, 1, 1, 16, 1, 1, 1, 1}, events: 1, decisions: 1, seen: 1}); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		m := spec.Maps[name]
		if !stored(name) {
			continue
		}
		fmt.Fprintf(&b, "map %s: %s, flags %#x, %d -> %d bytes", name, m.Type, m.Flags, m.KeySize, m.ValueSize)
		if !strings.HasPrefix(name, ".") && sized.Maps[name].MaxEntries == m.MaxEntries {
			fmt.Fprintf(&b, ", %d entries", m.MaxEntries) // whose size the loader does not choose
		}
		b.WriteByte('\n')
		for _, half := range []btf.Type{m.Key, m.Value} {
			describeType(&b, half, 1)
		}
	}
	b.WriteString(definitions(t, api))
	return b.String()
}

func describeType(w io.Writer, t btf.Type, depth int) {
	line := func(format string, args ...any) {
		fmt.Fprintf(w, strings.Repeat("  ", depth)+format+"\n", args...)
	}
	switch t := btf.UnderlyingType(t).(type) {
	case nil, *btf.Void:
	case *btf.Int:
		line("%d bytes, signed %t", t.Size, t.Encoding == btf.Signed)
	case *btf.Pointer:
		line("pointer")
		describeType(w, t.Target, depth+1)
	case *btf.Array:
		line("%d times", t.Nelems)
		describeType(w, t.Type, depth+1)
	case *btf.Struct:
		line("struct %s, %d bytes", t.Name, t.Size)
		for _, m := range t.Members {
			line("  %s at bit %d", m.Name, m.Offset)
			describeType(w, m.Type, depth+2)
		}
	case *btf.Enum:
		line("enum %s, %d bytes", t.Name, t.Size)
		for _, v := range t.Values {
			line("  %s = %d", v.Name, v.Value)
		}
	case *btf.Datasec:
		for _, v := range t.Vars {
			line("%s at byte %d", v.Type.TypeName(), v.Offset)
			describeType(w, v.Type.(*btf.Var).Type, depth+1)
		}
	default:
		line("%v", t)
	}
}

var (
	comment    = regexp.MustCompile(`(?s)/\*.*?\*/`)
	definition = regexp.MustCompile(`(?m)^#define SLB_.*$`)
	space      = regexp.MustCompile(`\s+`)
)

// definitions are api.h's macros but for the sizes of tables: the bits of words,
// checks and hashes.
func definitions(t *testing.T, api string) string {
	_, sizes, ok := strings.Cut(api, "/* ---- sizes ---")
	_, rest, more := strings.Cut(sizes, "/* ---- addresses ---")
	if !ok || !more {
		t.Fatal("api.h has no sections sizes and addresses any more")
	}
	rest = strings.ReplaceAll(comment.ReplaceAllString(rest, ""), "\\\n", " ")
	var b strings.Builder
	for _, line := range definition.FindAllString(rest, -1) {
		b.WriteString(strings.TrimSpace(space.ReplaceAllString(line, " ")) + "\n")
	}
	return b.String()
}

// A change of each kind is seen.
func TestLayoutTells(t *testing.T) {
	api, err := os.ReadFile("api.h")
	if err != nil {
		t.Fatal(err)
	}
	was := describeLayout(t, string(api))
	if reworded := strings.ReplaceAll(string(api), "network byte order", "another order"); describeLayout(t, reworded) != was {
		t.Error("a comment counts")
	}
	if bits := strings.Replace(string(api), "SLB_GROUP_STRICT (1ULL << 3)", "SLB_GROUP_STRICT (1ULL << 4)", 1); describeLayout(t, bits) == was {
		t.Error("another bit of a word does not count")
	}
	for _, part := range []string{
		"map cells: Array, flags 0x400, 4 -> 8 bytes\n", "map pair_keys: Array, flags 0x400, 4 -> 8 bytes, 16384 entries\n",
		"struct slb_origin, 80 bytes", "counted at bit", "SLB_STAT_STRICT_REFUSED = 12", "policy_word at byte", "struct slb_decision_event",
	} {
		if !strings.Contains(was, part) {
			t.Errorf("%q does not count", part)
		}
	}
}
