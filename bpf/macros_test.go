package bpf

import (
	"go/constant"
	"go/token"
	"go/types"
	"os"
	"regexp"
	"testing"
)

// Macros are in no type information, so Go says their values again: they are api.h's.
func TestMacros(t *testing.T) {
	api, err := os.ReadFile("api.h")
	if err != nil {
		t.Fatal(err)
	}
	text := comment.ReplaceAllString(string(api), "")
	suffix := regexp.MustCompile(`\b(0x[0-9a-f]+|\d+)(?i:u|ull)\b`)
	for name, ours := range map[string]uint64{
		"SLB_LAYOUT":              layout,
		"SLB_CGROUP_SPLIT":        ruleSplit,
		"SLB_CGROUP_COUNTED":      ruleCounted,
		"SLB_CGROUP_CHECK_SHIFT":  cgroupCheckShift,
		"SLB_PAIRS":               Pairs,
		"SLB_GROUP_USED":          groupUsed,
		"SLB_GROUP_NO_TRANSLATE":  groupNoTranslate,
		"SLB_GROUP_DENY":          groupDeny,
		"SLB_GROUP_STRICT":        groupStrict,
		"SLB_TRAIT_PASSIVE":       traitPassive,
		"SLB_TRAIT_REPORTED":      traitReported,
		"SLB_TRAIT_TERMINATE_UDP": traitTerminateUDP,
		"SLB_TRAIT_TERMINATE_TCP": traitTerminateTCP,
		"SLB_BACKEND_LOOPBACK":    backendLoopback,
		"SLB_SLOT_BITS":           slotBits,
		"SLB_POLICY_DENY":         policyWordDeny,
		"SLB_POLICY_HOST_DENY":    policyWordHostDeny,
		"SLB_POLICY_LENGTHS4":     policyLengths4,
		"SLB_POLICY_LENGTHS6":     policyLengths6,
		"SLB_POLICY_NAMES4":       policyNames4,
		"SLB_POLICY_NAMES6":       policyNames6,
		"SLB_POLICY_DATA":         policyData,
		"SLB_POLICY_PROBES":       policyProbes,
		"SLB_POLICY_CLASS_DENY":   policyDeny,
		"SLB_POLICY_LINES":        PolicyLines,
		"SLB_RULES":               slicelbRules,
		"SLB_LATENCY_SHIFT":       latencyShift,
		"SLB_WATCH_ANY_GROUP":     anyGroup,
		"SLB_CELL_NETWORKS":       NetworksCell,
	} {
		m := regexp.MustCompile(`(?m)^#define ` + name + `[ \t]+(.*)$`).FindStringSubmatch(text)
		if m == nil {
			t.Errorf("api.h does not define %s", name)
			continue
		}
		v, err := types.Eval(token.NewFileSet(), nil, token.NoPos, suffix.ReplaceAllString(m[1], "$1"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if theirs, ok := constant.Uint64Val(v.Value); !ok || theirs != ours {
			t.Errorf("%s is %s, here it is %#x", name, v.Value, ours)
		}
	}
}
