package live

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/kerneltest"
)

const keptVIP = "10.96.0.11:80"

// explain is what the command says of a client, as people and as programs read it.
func (h *host) explain(address string, c *kerneltest.Client) (text string, x api.Explanation) {
	h.Helper()
	args := []string{"explain", address, "--pid", fmt.Sprint(c.Pid)}
	out, err := h.command(args...).CombinedOutput()
	if err != nil {
		h.Fatalf("%v: %v\n%s", args, err, out)
	}
	js, err := h.command(append(args, "-o", "json")...).Output()
	if err != nil {
		h.Fatal(err)
	}
	if err := json.Unmarshal(js, &x); err != nil {
		h.Fatal(err)
	}
	return string(out), x
}

// Where explain says that Maglev leads a caller, its connects do go: with the weights
// of the configuration, after a change of the table, by the name of a group, by the id
// of a split child, and with affinity by the network namespace too.
func TestExplainMaglev(t *testing.T) {
	h := newHost(t)
	weights := map[string]uint32{}
	var backends strings.Builder
	for i := range 6 {
		s := kerneltest.Serve(t, fmt.Sprintf("127.0.0.1:%d", 8001+i), fmt.Sprintf("127.0.0.1:%d", 8001+i))
		weights[s.Name] = uint32(10 + 10*(i%3))
		fmt.Fprintf(&backends, "  { address = %q, weight = %d },\n", s.Addr, weights[s.Name])
	}
	var toml strings.Builder
	callers := map[string]*kerneltest.Client{"host": kerneltest.Start(t, h.root)}
	for i := range 8 {
		name := fmt.Sprintf("group%d", i)
		fmt.Fprintf(&toml, "[group.%s]\nslices = [\"%s.slice\"]\n", name, name)
		callers[name] = kerneltest.Start(t, h.root.Make(t, name+".slice", "deeper"))
	}
	toml.WriteString("[group.jobs]\nslices = [\"jobs.slice\"]\nsplit = \"*.scope\"\n")
	for i := range 4 {
		callers[fmt.Sprintf("jobs/%d.scope", i)] = kerneltest.Start(t, h.root.Make(t, "jobs.slice", fmt.Sprintf("%d.scope", i)))
	}
	fmt.Fprintf(&toml, "[vip.web]\nfrontends = [%q, %q]\nalgorithm = \"maglev\"\nbackend = [\n%s]\n", vip, vip+"/udp", &backends)
	fmt.Fprintf(&toml, "[vip.kept]\nfrontends = [%q]\nalgorithm = \"maglev\"\naffinity = \"10m\"\nbackend = [\n%s]\n", keptVIP, &backends)
	h.serve(toml.String())

	seen := map[string]bool{}
	lead := func(when, address string) {
		t.Helper()
		for name, c := range callers {
			text, x := h.explain(address, c)
			if x.Group != name || x.Chosen == "" || !strings.Contains(text, " to: "+x.Chosen) {
				t.Errorf("%s: %s, which is %s, is led to %q\n%s", when, name, x.Group, x.Chosen, text)
			}
			if keeps := strings.Contains(text, "unless it keeps another that it has called in the last 10m0s"); keeps != (address == keptVIP) {
				t.Errorf("%s: of affinity:\n%s", when, text)
			}
			for _, b := range x.Backends {
				if b.Weight != weights[b.Address] || b.Share == 0 {
					t.Errorf("%s: backend %+v, want weight %d", when, b, weights[b.Address])
				}
			}
			for range 3 {
				s := c.TCP(address)
				if err := s.Connect(address); err != nil {
					t.Fatal(err)
				}
				got, err := s.Receive()
				if got = strings.TrimSpace(got); err != nil || got != x.Chosen {
					t.Errorf("%s: %s went to %q, %v; explain said %s", when, name, got, err, x.Chosen)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			seen[x.Chosen] = true
		}
	}
	lead("at first", vip)
	lead("with affinity", keptVIP)
	if len(seen) < 3 {
		t.Errorf("all are led to %v", seen)
	}
	_, before := h.explain(vip, callers["group0"])
	h.slicelb("backend", "drain", "web", before.Chosen)
	lead("after a change", vip)
	if _, after := h.explain(vip, callers["group0"]); after.Chosen == before.Chosen || len(after.Backends) != len(weights)-1 {
		t.Errorf("drained, and led there: %+v", after)
	}

	// An unconnected UDP socket begins where the key leads.
	text, x := h.explain(vip+"/udp", callers["group1"])
	if got := askUDP(t, callers["group1"].UDP(vip)); got != x.Chosen || !strings.Contains(text, "a socket that is not connected keeps the one that it has") {
		t.Errorf("a datagram went to %s:\n%s", got, text)
	}

	// Another network namespace has a say with affinity alone, and its loopback is its own.
	abroad := kerneltest.StartRootless(t, h.root.Make(t, "group2.slice", "abroad"), "192.0.2.77")
	_, home := h.explain(vip, callers["group2"])
	text, x = h.explain(vip, abroad)
	if x.Chosen != home.Chosen || !strings.Contains(text, "EHOSTUNREACH") {
		t.Errorf("from another network namespace led to %q, at home to %q\n%s", x.Chosen, home.Chosen, text)
	}
	text, x = h.explain(keptVIP, abroad)
	if x.Chosen != "" || x.Action != "balance" || !strings.Contains(text, "lead to, which is not known here; kept until 10m0s pass") {
		t.Errorf("with affinity, from another network namespace: %q\n%s", x.Chosen, text)
	}
}
