package page

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/kerneltest"
)

var (
	shots     = flag.String("shots", "", "write screenshots into this folder")
	addresses = flag.String("addresses", "127.0.0.", "of the backends, without the last number")
)

func TestMain(m *testing.M) {
	if os.Getenv(callerEnv) != "" {
		callForever()
	}
	kerneltest.Main(m)
}

// show serves a picture that grows with each answer, as traffic does.
func show(t *testing.T, picture func(n uint64) *api.Picture) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Uint64
	s := &api.Web{
		Picture: func(context.Context) (*api.Picture, error) {
			p := picture(n.Add(1))
			p.At = time.Now()
			return p, nil
		},
		Metrics: &api.Kept{Make: func(context.Context) ([]byte, error) { return nil, nil }},
		Log:     slog.New(slog.DiscardHandler),
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return "http://" + ln.Addr().String() + "/"
}

// vips is a picture of so many VIPs of three backends and a fifth as many groups.
func vips(count int) func(n uint64) *api.Picture {
	return func(n uint64) *api.Picture {
		p := &api.Picture{
			State: api.OK, Version: "1.0.0", Started: time.Now().Add(-time.Hour), Loaded: time.Now(), Attached: true,
			Problems: []string{}, VIPs: []api.PictureVIP{}, Groups: []api.PictureGroup{}, Calls: []api.Calls{},
		}
		for i := range (count + 4) / 5 {
			p.Groups = append(p.Groups, api.PictureGroup{
				Name: fmt.Sprintf("group-%d", i), Slices: 1, Translate: true, Anchors: 1, Members: i,
			})
		}
		for i := range count {
			v := api.PictureVIP{
				Name: fmt.Sprintf("vip-%d", i), Frontends: []string{fmt.Sprintf("10.96.%d.%d:80", i/250, i%250+1)}, Except: []string{},
				WhenDown: "reject", For: []api.PictureView{}, Backends: []api.PictureBackend{},
			}
			for b := range 3 {
				v.Backends = append(v.Backends, api.PictureBackend{
					VIP: v.Name, Address: fmt.Sprintf("192.0.2.%d:%d", b+1, 8000+i), Weight: 1, State: "active", Share: 1. / 3,
					Counters: api.Counters{Connects: n * uint64(i)},
				})
			}
			v.Counters.Connects = 3 * n * uint64(i)
			p.Calls = append(p.Calls, api.Calls{Group: p.Groups[i/5].Name, VIP: v.Name, Counters: v.Counters})
			p.VIPs = append(p.VIPs, v)
			p.Backends, p.Up = p.Backends+3, p.Up+3
		}
		return p
	}
}

// shot keeps a picture of the page where somebody wants one.
func (b *browser) shot(name string) {
	if *shots != "" {
		b.t.Helper()
		b.screenshot(*shots+"/"+name+".png", false)
	}
}

const hasRates = `document.body?.dataset.ready === "rates"`

// What a picture says is on the page, in the picture and in the tables, and the
// policy has had nothing to refuse.
func TestContent(t *testing.T) {
	b := open(t, show(t, func(n uint64) *api.Picture {
		p := vips(3)(n)
		p.VIPs[1].Backends[1].State, p.VIPs[1].Backends[1].Reason = "down", "fails its checks"
		p.VIPs[1].Backends[1].Check = &api.PictureCheck{Type: "tcp", State: "down", Count: 4}
		p.VIPs[2].Backends[0].State, p.VIPs[2].Backends[0].Reason = "draining", "drain"
		p.State, p.Problems = api.Degraded, []string{"the reload at 10:00:00 failed"}
		p.Groups = append(p.Groups, api.PictureGroup{Name: "later", Slices: 1, Pending: 1})
		return p
	}))
	b.await(hasRates)
	for _, want := range []string{"vip-0", "10.96.0.2:80", "192.0.2.3:8002", "group-0", "later", "degraded", "the reload at 10:00:00 failed", "fails its checks", "tcp down"} {
		if text := eval[string](b, "document.body.innerText + document.querySelector('svg').textContent"); !strings.Contains(text, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	for selector, want := range map[string]int{
		"#picture .node.vip": 3, "#picture .node.backend": 9, "#picture .node.group": 2, "#picture .edge": 12,
		"#vips tbody tr": 3, "#backends tbody tr": 9, "#groups tbody tr": 2,
		".node.backend[data-state=down]": 1, ".node.backend[data-state=draining]": 1, ".node.vip[data-state=partly]": 2, ".node.group[data-state=pending]": 1,
		"#backends .mark[data-state=down]": 1,
	} {
		if got := eval[int](b, fmt.Sprintf("document.querySelectorAll(%q).length", selector)); got != want {
			t.Errorf("%d of %s, want %d", got, selector, want)
		}
	}
	// Rates are on the edges, once there are two readings: VIP 2 has six calls more
	// with each.
	b.await(`[...document.querySelectorAll(".edge.in text")].some((e) => /^[0-9.]+\/s$/.test(e.textContent))`)
	// State is a shape, not a colour alone.
	if n := eval[int](b, `new Set([...document.querySelectorAll(".node.backend .icon")].map((e) => e.getAttribute("d").replace(/[0-9.-]+/g, ""))).size`); n != 3 {
		t.Errorf("%d shapes for three states", n)
	}
	if n := eval[int](b, `performance.getEntriesByType("resource").filter((e) => !e.name.startsWith(location.origin)).length`); n != 0 {
		t.Errorf("%d resources from elsewhere", n)
	}
	if got := eval[string](b, "document.cookie"); got != "" {
		t.Errorf("cookie %q", got)
	}
	b.shot("few")
	b.quiet()
}

// A dotted edge may call and does not: it is not there for a group that is no client,
// whatever it called once, and is there for who has called where everybody may.
func TestIdleEdges(t *testing.T) {
	b := open(t, show(t, func(n uint64) *api.Picture {
		p := vips(3)(n)
		p.VIPs[0].Clients, p.VIPs[1].Clients = []string{"group-0"}, []string{"group-0"}
		p.Groups[0].Members = 1
		p.Calls = []api.Calls{
			{Group: "host", VIP: "vip-0", Counters: api.Counters{Passed: 1}},
			{Group: "host", VIP: "vip-1", Counters: api.Counters{Rejected: n}},
			{Group: "host", VIP: "vip-2", Counters: api.Counters{Connects: 1}},
		}
		return p
	}))
	b.await(hasRates)
	b.await(`document.querySelectorAll(".edge.in.bad").length === 1`)
	const in = `[...document.querySelectorAll(".edge.in")].map((e) => e.dataset.key + (e.classList.contains("idle") ? " idle" : "")).sort().join(", ")`
	if got, want := eval[string](b, in), "e group-0 vip-0 idle, e group-0 vip-1 idle, e host vip-1, e host vip-2 idle"; got != want {
		t.Errorf("edges %s, want %s", got, want)
	}
	b.size(360, 740, true)
	b.await(`[...document.querySelectorAll(".node.group .sub")].some((e) => e.textContent === "1 member")`)
}

// Names that are markup are text. The policy would stop a script too; here
// nothing gets as far as that.
func TestHostileText(t *testing.T) {
	const evil = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`
	b := open(t, show(t, func(n uint64) *api.Picture {
		p := vips(2)(n)
		p.Problems = []string{evil}
		p.VIPs[0].Frontends = []string{evil}
		p.VIPs[0].Backends[0].Reason, p.VIPs[0].Backends[0].State = evil, "down"
		p.VIPs[0].Backends[0].Check = &api.PictureCheck{Type: evil}
		p.Groups[0].Name = evil
		return p
	}))
	b.await(hasRates)
	eval[bool](b, `document.querySelector(".node.vip").dispatchEvent(new MouseEvent("click", { bubbles: true }))`)
	if n := eval[int](b, `document.querySelectorAll("img, body script").length`); n != 0 || eval[string](b, "document.title") == "owned" {
		t.Errorf("%d elements of the text's own, title %q", n, eval[string](b, "document.title"))
	}
	if got := eval[string](b, `document.querySelector("#problems li").textContent`); got != evil {
		t.Errorf("problem: %q", got)
	}
	b.quiet()
	// The policy is in force: what the page does not do is refused.
	if !eval[bool](b, `(() => { try { document.body.innerHTML = "<b>x</b>"; return false } catch { return true } })()`) {
		t.Error("markup can be made of text")
	}
}

// The page can be used without a pointer.
func TestKeyboard(t *testing.T) {
	b := open(t, show(t, vips(3)))
	b.await(hasRates)
	active := func() string {
		return eval[string](b, `document.activeElement.dataset.key ?? document.activeElement.id ?? ""`)
	}
	b.key("Tab") // the link over the picture
	b.key("Tab")
	if got := active(); got != "find" {
		t.Fatalf("the second stop is %q", got)
	}
	b.key("Tab")
	if got := active(); got != "g group-0" {
		t.Fatalf("the picture's stop is %q", got)
	}
	if !eval[bool](b, `getComputedStyle(document.activeElement.querySelector("rect")).strokeWidth === "2.6px"`) {
		t.Error("what has the focus does not show it")
	}
	b.key("ArrowRight")
	b.key("ArrowDown")
	b.key("ArrowRight")
	if got := active(); !strings.HasPrefix(got, "b vip-") {
		t.Errorf("right, down, right is %q", got)
	}
	b.key("ArrowLeft")
	vip := active()
	b.key("Enter")
	b.await(`document.querySelector("svg.chosen") && !document.getElementById("detail").hidden`)
	if got := eval[string](b, `document.querySelector("#detail h3").textContent`); "v "+got != vip {
		t.Errorf("%q is shown, %q was chosen", got, vip)
	}
	if n := eval[int](b, `document.querySelectorAll(".node.backend.on").length`); n != 3 {
		t.Errorf("%d backends belong to it", n)
	}
	// A new picture takes neither focus nor choice away.
	before := eval[string](b, `document.querySelector(".edge text").textContent + document.getElementById("totals").textContent`)
	b.await(fmt.Sprintf(`document.querySelector(".edge text").textContent + document.getElementById("totals").textContent !== %q || true`, before))
	if got := active(); got != vip {
		t.Errorf("the focus went to %q", got)
	}
	b.key("Escape")
	b.await(`!document.querySelector("svg.chosen") && document.getElementById("detail").hidden`)
	b.key("Tab")
	if got := active(); strings.Contains(got, " ") {
		t.Errorf("Tab stays in the picture: %q", got)
	}
	b.quiet()
}

// In the dark, the page is dark, and text keeps its contrast.
func TestDark(t *testing.T) {
	b := open(t, show(t, vips(3)))
	b.await(hasRates)
	const contrast = `(() => {
		const lum = (c) => { const [r, g, b] = c.match(/[0-9.]+/g).slice(0, 3).map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 }); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
		const ratio = (a, b) => { const [x, y] = [lum(a), lum(b)].sort((m, n) => n - m); return (x + 0.05) / (y + 0.05) };
		const card = getComputedStyle(document.getElementById("picture")).backgroundColor;
		const texts = [...document.querySelectorAll("td, th, .state")].map((e) => getComputedStyle(e).color).concat([...document.querySelectorAll("svg .node text")].map((e) => getComputedStyle(e).fill));
		return Math.min(...texts.map((c) => ratio(c, card)));
	})()`
	const background = `getComputedStyle(document.body).backgroundColor`
	light := eval[string](b, background)
	if got := eval[float64](b, contrast); got < 4.5 {
		t.Errorf("contrast %.2f in the light", got)
	}
	b.prefer("prefers-color-scheme", "dark")
	dark := eval[string](b, background)
	if light != "rgb(244, 246, 249)" || dark != "rgb(13, 18, 24)" {
		t.Errorf("background %s, in the dark %s", light, dark)
	}
	if got := eval[float64](b, contrast); got < 4.5 {
		t.Errorf("contrast %.2f in the dark", got)
	}
	b.shot("dark")
	b.quiet()
}

// Who wants no motion sees none.
func TestReducedMotion(t *testing.T) {
	b := open(t, show(t, vips(3)))
	b.await(hasRates)
	b.await(`document.getAnimations().length > 0`)
	b.prefer("prefers-reduced-motion", "reduce")
	b.await(`document.getAnimations().length === 0`)
	b.quiet()
}

// On a phone nothing is cut off and nothing scrolls sideways; the same holds
// with many VIPs.
func TestPhone(t *testing.T) {
	for _, count := range []int{3, 300} {
		b := open(t, show(t, vips(count)))
		b.size(360, 740, true)
		b.await(hasRates)
		b.await(`document.querySelector("#picture svg").viewBox.baseVal.width <= 360`)
		if w := eval[int](b, "document.documentElement.scrollWidth"); w > 360 {
			t.Errorf("%d VIPs: %d wide", count, w)
		}
		over := eval[int](b, `[...document.querySelectorAll("#picture .node")].filter((e) => { const r = e.getBoundingClientRect(); return r.left < 0 || r.right > 360 }).length`)
		if over != 0 {
			t.Errorf("%d VIPs: %d nodes reach over the side", count, over)
		}
		wide := eval[[]string](b, `[...document.querySelectorAll("#picture .node")].filter((e) => [...e.querySelectorAll("text")].some((x) => x.getBoundingClientRect().right > e.querySelector("rect").getBoundingClientRect().right + 1)).map((e) => e.textContent)`)
		if len(wide) > 0 {
			t.Errorf("%d VIPs: text that reaches over its box: %q", count, wide)
		}
		b.shot(fmt.Sprintf("phone-%d", count))
		b.quiet()
	}
}

// With many VIPs the picture shows the busiest, the tables all, and a search
// finds the rest.
func TestMany(t *testing.T) {
	b := open(t, show(t, func(n uint64) *api.Picture {
		p := vips(300)(n)
		p.VIPs[7].Backends[0].State = "down"
		return p
	}))
	b.await(hasRates)
	count := func(selector string) int {
		return eval[int](b, fmt.Sprintf("document.querySelectorAll(%q).length", selector))
	}
	if got := count("#vips tbody tr"); got != 300 {
		t.Errorf("%d rows", got)
	}
	if got := count("#picture .node.vip"); got != 24 {
		t.Errorf("%d VIPs in the picture", got)
	}
	if eval[bool](b, `!document.querySelector('[data-key="v vip-7"]') || !document.querySelector('[data-key="v vip-299"]')`) {
		t.Error("what is not well, or the busiest, is not in the picture")
	}
	over := eval[[]string](b, `(() => {
		const boxes = [...document.querySelectorAll("#picture .node:not(.more)")].map((e) => ({ k: e.dataset.key, r: e.querySelector("rect").getBoundingClientRect() }));
		return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => a.r.left < b.r.right && b.r.left < a.r.right && a.r.top < b.r.bottom - 0.5 && b.r.top < a.r.bottom - 0.5).map((b) => a.k + " / " + b.k));
	})()`)
	if len(over) > 0 {
		t.Errorf("boxes lie over each other: %q", over)
	}
	b.shot("many")
	eval[bool](b, `(() => { const f = document.getElementById("find"); f.value = "vip-123"; f.dispatchEvent(new Event("input")); return true })()`)
	if vips, rows := count("#picture .node.vip"), count("#vips tbody tr"); vips != 1 || rows != 1 {
		t.Errorf("found %d in the picture, %d in the table", vips, rows)
	}
	b.quiet()
}

// Of VIPs that there was no room for a moment ago nothing is known: their calls since
// they exist are none of the last seconds. What is not here is not said to be nowhere.
func TestCut(t *testing.T) {
	b := open(t, show(t, func(n uint64) *api.Picture {
		p := vips(3)(1)
		p.MoreVIPs = 5
		if p.VIPs[2].Counters.Connects = 1000000; n == 1 {
			p.VIPs = p.VIPs[:2]
		}
		return p
	}))
	b.await(hasRates)
	if got := eval[string](b, `[...document.querySelectorAll("#vips tbody tr")].find((r) => r.textContent.includes("vip-2")).querySelector('[data-name="Calls/s"]').textContent`); got != "0" {
		t.Errorf("%s calls a second", got)
	}
	eval[bool](b, `(() => { const f = document.getElementById("find"); f.value = "zzz"; f.dispatchEvent(new Event("input")); return true })()`)
	if got := eval[string](b, `document.getElementById("shown").textContent`); got != "None of the 3 VIPs that the page has has that in its name; slicelb vip list has all 8." {
		t.Errorf("found: %s", got)
	}
	b.quiet()
}

// Where nothing is configured the page says so.
func TestEmpty(t *testing.T) {
	b := open(t, show(t, func(n uint64) *api.Picture {
		return vips(0)(n)
	}))
	b.await(hasRates)
	if text := eval[string](b, "document.body.innerText"); !strings.Contains(text, "No VIP is configured.") {
		t.Errorf("the page says %q", text)
	}
	b.quiet()
}
