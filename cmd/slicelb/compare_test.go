package main

import (
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
)

// compared is the configuration that explain's tests use, too.
func compared(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../config/testdata/situations.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestCompare(t *testing.T) {
	parse := func(toml string) *config.Config {
		t.Helper()
		c, err := config.Parse("test", []byte(toml))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	base := parse(compared(t))
	text, err := base.Text(true)
	if err != nil {
		t.Fatal(err)
	}
	same, err := parseRunning(&api.RunningConfig{TOML: text})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		want *config.Config
		diff []change
	}{
		{"rendered and read", same, []change{}},
		{"a weight", parse(strings.Replace(compared(t), "weight = 3", "weight = 4", 1)), []change{
			{"~", "vip.db", []field{{"-", "backend 192.0.2.11:5432 weight 3"}, {"+", "backend 192.0.2.11:5432 weight 4"}}},
		}},
		{"everybody", parse(strings.Replace(compared(t), "clients = [\"web\", \"canary\", \"proxy\"]\nhidden", "hidden", 1)), []change{
			{"~", "vip.db", []field{{"-", "clients = [web canary proxy]"}, {"+", "clients = any"}}},
		}},
		{"gone", parse(strings.Replace(compared(t), "[vip.down]\nfrontends = [\"10.96.0.11:80\"]\n", "", 1)), []change{
			{"-", "vip.down", []field{}},
		}},
		{"new", parse(compared(t) + "[vip.zz]\nfrontends = [\"10.96.0.99:80\"]\n"), []change{
			{"+", "vip.zz", []field{
				{"+", "frontend 10.96.0.99:80"}, {"+", `algorithm = "random"`}, {"+", `affinity = "0s"`}, {"+", "reject_unknown_ports = false"}, {"+", "clients = any"}, {"+", "except = []"}, {"+", `hidden = "pass"`}, {"+", `when_down = "reject"`},
				{"+", `drain_timeout = "0s"`}, {"+", `terminate = "udp"`},
			}},
		}},
		{"order of groups", parse("[group.cache]\nslices = [\"cache.slice\"]\n" + strings.Replace(compared(t), "[group.cache]\nslices = [\"cache.slice\"]\n", "", 1)), []change{
			{"~", "order of groups", []field{{"-", "web canary proxy cache"}, {"+", "cache web canary proxy"}}},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.diff, compare(base, test.want)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Every value of a configuration that is another one shows.
func TestCompareSeesEverything(t *testing.T) {
	whole := compared(t) + `
[group.strict]
slices = ["strict.slice"]
policy = "deny"
strict = true
split = "*.scope"
split_metrics = 5
[vip.unit]
frontends = ["10.96.0.20:80"]
[[vip.unit.backend]]
unit = "web@*.service"
address = "127.0.0.1:%i"
[vip.unit.health]
type = "https"
path = "/"
expect = "200-299"
headers = { Accept = "text/plain" }
ca_file = "/etc/ssl/ca.pem"
[vip.unit.for.web]
[[vip.unit.for.web.backend]]
unit = "web@1.service"
address = "127.0.0.1:%i"
[policy]
default = "deny"
[[policy.rule]]
from = ["web"]
to = ["10.0.0.0/8:80-90/tcp", "db+backends"]
action = "audit"
`
	parse := func() *config.Config {
		c, err := config.Parse("test", []byte(whole))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	base := parse()
	if changes := compare(base, parse()); len(changes) > 0 {
		t.Fatalf("the same: %+v", changes)
	}
	places := 0
	for ; ; places++ {
		c := parse()
		n := places
		where := alter(reflect.ValueOf(c).Elem(), "", &n)
		if where == "" {
			break
		}
		if len(compare(base, c)) == 0 {
			t.Errorf("nothing says that %s is another one", where)
		}
	}
	if places < 100 {
		t.Errorf("%d values", places)
	}
}

// unseen are fields that say nothing of their own: where a value stands, what follows
// from others, and what a name is made of.
var unseen = []string{"Origin", "Files", "Main", "Pattern", "Family", "Name", "Group"}

// alter changes the n-th value below v, and says where it is; "" = there are fewer.
func alter(v reflect.Value, path string, n *int) string {
	var other any
	switch x := v.Interface().(type) {
	case netip.AddrPort:
		other = netip.MustParseAddrPort("203.0.113.77:7777")
	case config.Target:
		other = config.Target{VIP: "another"}
	case config.Proto:
		other = config.TCP + config.UDP - x
	}
	if other != nil {
		if *n--; *n >= 0 {
			return ""
		}
		v.Set(reflect.ValueOf(other))
		return path
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			_, backend := v.Interface().(config.Backend)
			if slices.Contains(unseen, name) || backend && name == "Unit" { // the files name none
				continue
			}
			if where := alter(v.Field(i), path+"."+name, n); where != "" {
				return where
			}
		}
		return ""
	case reflect.Pointer:
		if v.IsNil() {
			return ""
		}
		return alter(v.Elem(), path, n)
	case reflect.Slice:
		for i := range v.Len() {
			if where := alter(v.Index(i), fmt.Sprintf("%s[%d]", path, i), n); where != "" {
				return where
			}
		}
		return ""
	}
	if *n--; *n >= 0 {
		return ""
	}
	switch {
	case v.Kind() == reflect.Bool:
		v.SetBool(!v.Bool())
	case v.CanInt():
		v.SetInt(v.Int() + 1)
	case v.CanUint():
		v.SetUint(v.Uint() ^ 1)
	case v.Kind() == reflect.String:
		v.SetString(v.String() + "x")
	}
	return path
}
