package daemon

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
)

// plant gives every text of v a secret that names its place, and every list an
// element.
func plant(v reflect.Value, place string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("secret " + place)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		plant(v.Elem(), place)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		plant(v.Index(0), place)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			plant(v.Field(i), strings.TrimPrefix(place+"."+v.Type().Field(i).Name, "."))
		}
	}
}

// texts are all strings of a JSON value, those that are keys too.
func texts(v any, f func(string)) {
	switch v := v.(type) {
	case string:
		f(v)
	case []any:
		for _, e := range v {
			texts(e, f)
		}
	case map[string]any:
		for k, e := range v {
			f(k)
			texts(e, f)
		}
	}
}

// The page, which anybody may see, has of a status what the documentation says it
// has: names of VIPs and groups, addresses, and words of this program. Nothing else
// gets there, whatever a status has one day.
func TestPictureKeepsSecrets(t *testing.T) {
	var s api.Status
	plant(reflect.ValueOf(&s).Elem(), "")
	s.Problems = []string{"a kind of problem: /etc/slicelb/secret.toml:1:1", "another\nsecret = true"}
	p := pictureOf(&s, []api.Calls{{Group: s.Groups[0].Name, VIP: s.VIPs[0].Name}}, time.Now())
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(b, &value); err != nil {
		t.Fatal(err)
	}
	shown := []string{
		"State", "Version", "VIPs.Name", "VIPs.Frontends", "VIPs.Clients", "VIPs.Except", "VIPs.WhenDown", "VIPs.For.Group", "Groups.Name",
	}
	for _, list := range []string{"VIPs.Backends.", "VIPs.For.Backends."} {
		for _, field := range []string{"VIP", "Group", "Address", "State", "Check.Type", "Check.State"} {
			shown = append(shown, list+field)
		}
	}
	seen := map[string]bool{}
	texts(value, func(text string) {
		place, secret := strings.CutPrefix(text, "secret ")
		if !secret && strings.Contains(text, "secret") || secret && !slices.Contains(shown, place) {
			t.Errorf("anybody sees %q", text)
		}
		seen[place] = true
	})
	for _, place := range shown {
		if !seen[place] {
			t.Errorf("%s is not on the page", place)
		}
	}
	if got := fmt.Sprintf("%q", p.Problems); got != `["a kind of problem" "another"]` {
		t.Errorf("problems: %s", got)
	}
}

// Why a backend is out is said in words of this program, that name nobody.
func TestKeptOutBy(t *testing.T) {
	for want, b := range map[string]api.Backend{
		"":                      {Weight: 1},
		"drained":               {Order: api.OrderDrain, UnitState: "active"},
		"in maintenance":        {Order: api.OrderMaint},
		"has failed":            {Weight: 1, Unit: "web@1.service", UnitState: "failed", Reason: "unit web@1.service has failed"},
		"waits to be restarted": {Weight: 1, UnitState: "auto-restart", Check: &api.Check{State: "unchecked"}},
		"is starting":           {Weight: 1, UnitState: "activating"},
		"is stopping":           {Weight: 1, UnitState: "deactivating"},
		"fails its checks":      {Weight: 1, UnitState: "active", Check: &api.Check{State: "down", Error: "the answer begins with \"secret\""}},
		"not checked yet":       {Weight: 1, Check: &api.Check{State: "unchecked"}},
		"weight 0":              {Check: &api.Check{State: "up"}},
	} {
		if got := keptOutBy(&b); got != want {
			t.Errorf("%+v: %q, want %q", b, got, want)
		}
	}
}

// Where a page has no room for all VIPs, it has those that are not well, whatever
// their names, then the busiest, and counts the backends of all.
func TestPictureOfMany(t *testing.T) {
	s := &api.Status{}
	for i := range pictureVIPs {
		s.VIPs = append(s.VIPs, api.VIP{
			Name: fmt.Sprintf("a%04d", i), Backends: []api.Backend{{Address: "192.0.2.1:80", State: "active"}}, Counters: api.Counters{Connects: uint64(i)},
		})
	}
	s.VIPs = append(s.VIPs,
		api.VIP{Name: "partly", Backends: []api.Backend{{Address: "192.0.2.1:80", State: "active"}, {Address: "192.0.2.2:80", State: "down"}}},
		api.VIP{Name: "units"}, // none of which runs
		api.VIP{Name: "view", Backends: []api.Backend{{Address: "192.0.2.1:80", State: "active"}}, For: []api.View{{
			Group: "g", Backends: []api.Backend{{Address: "192.0.2.1:80", State: "active"}, {Address: "192.0.2.3:80", State: "draining"}},
		}}},
	)
	p := pictureOf(s, nil, time.Now())
	var names []string
	for _, v := range p.VIPs {
		names = append(names, v.Name)
	}
	if len(names) != pictureVIPs || names[0] != "a0003" || !slices.IsSorted(names) || names[pictureVIPs-3] != "partly" || names[pictureVIPs-1] != "view" {
		t.Errorf("%d VIPs, from %s to %s", len(names), names[0], names[len(names)-3:])
	}
	if p.MoreVIPs != 3 || p.Backends != pictureVIPs+4 || p.Up != pictureVIPs+2 {
		t.Errorf("%d more VIPs, %d of %d backends up", p.MoreVIPs, p.Up, p.Backends)
	}
}
