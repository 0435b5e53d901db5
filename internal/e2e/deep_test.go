package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/internal/lab"
)

// The programs count levels from the root of the whole hierarchy, of which the lab sees a
// part. The deepest slice that may be configured there is found from far below; one level
// more is refused, and nothing changes. edge D23, edge D27
func TestDeepestSlice(t *testing.T) {
	h := identify(t)
	level := 0 // of the lab's root
	for dir := h.CgroupDir(); dir != "/"; dir = filepath.Dir(dir) {
		id, err := inodeOf(dir)
		if err != nil {
			t.Fatal(err)
		}
		if id == 1 {
			break
		}
		level++
	}
	deep := func(levels int) string { return "/deep" + strings.Repeat("/d", levels-1) }
	with := func(levels int) string {
		return strings.Replace(identities, `["fresh.slice"]`, fmt.Sprintf("[%q]", deep(levels)), 1)
	}
	most := 31 - level
	h.removes("/deep")
	h.configure(with(most))
	h.start()
	st := h.healthy()
	if want := fmt.Sprintf("%s is a part of the cgroup tree, at level %d:", lab.CgroupRoot, level); !strings.Contains(strings.Join(st.Notes, "\n"), want) {
		t.Errorf("notes %q, want %q", st.Notes, want)
	}
	h.right("at the deepest level, and up to six further down", h.answered("deep", h.run("firsts", vip, "30", deep(most), "x-%d.scope")), "127.0.0.1:7002", 30)
	for _, below := range []string{"", "/a/b/c"} {
		dir := lab.CgroupRoot + deep(most) + below
		h.must("mkdir", "-p", dir)
		if text, x := h.explanation("--cgroup", deep(most)+below); x.Group != "fresh" || x.Decided != deep(most) {
			t.Errorf("%s: group %q by %q\n%s", below, x.Group, x.Decided, text)
		}
	}

	h.configure(with(most + 1))
	want := fmt.Sprintf("lies %d levels below the cgroup root, which is at level %d itself: %d at most", most+1, level, most)
	if code, out := h.exit("slicelb", "reload"); code != 78 || !strings.Contains(out, want) || !strings.Contains(out, "slicelb.toml:") {
		t.Errorf("reload exits %d, and says\n%s", code, out)
	}
	h.right("after that", h.answered("deep", h.run("firsts", vip, "6", deep(most), "y-%d.scope")), "127.0.0.1:7002", 6)
}
