package config

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseTarget(t *testing.T) {
	for _, tt := range []struct {
		text string
		want string // its canonical form, or of the message and hint
	}{
		{"db", "db"},
		{"db+backends", "db+backends"},
		{"10.0.0.0/8", "10.0.0.0/8"},
		{"10.0.0.0/8:5432", "10.0.0.0/8:5432"},
		{"10.0.0.0/8:5432/tcp", "10.0.0.0/8:5432/tcp"},
		{"10.0.0.0/8/udp", "10.0.0.0/8/udp"},
		{"10.0.0.0/8:8000-8999/udp", "10.0.0.0/8:8000-8999/udp"},
		{"192.0.2.1", "192.0.2.1"},
		{"192.0.2.1/32:1-65535", "192.0.2.1:1-65535"},
		{"192.0.2.1:53/udp", "192.0.2.1:53/udp"},
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"fd00::/8", "fd00::/8"},
		{"fd00::/8/tcp", "fd00::/8/tcp"},
		{"[fd00::/8]", "fd00::/8"},
		{"[fd00::/8]:5432/tcp", "[fd00::/8]:5432/tcp"},
		{"[fd00::1]:80-81", "[fd00::1]:80-81"},
		{"::/0", "::/0"},

		{"db+backend", `bad: "+backend" is not known: write "db+backends"`},
		{"10.0.0.1/8", "bad: bits are set beyond the prefix length: write 10.0.0.0/8"},
		{"10.0.0.0/33", "bad: not an IP network"},
		{"10.0.0.0/8:0", "bad: port 0 is not from 1 to 65535"},
		{"10.0.0.0/8:", `bad: ports "" are no numbers`},
		{"10.0.0.0/8:70000", "bad: port 70000 is not from 1 to 65535"},
		{"10.0.0.0/8:080", `bad: port 080 begins with a zero`},
		{"10.0.0.01/32:80", "bad: not an IP network: write 10.0.0.1/32: numbers do not begin with a zero"},
		{"fd00::/8:80", "bad: not an IP network: an IPv6 network with ports is written [fd00::/8]:80"},
		{"10.0.0.0/8:20-10", `bad: the range of ports "20-10" is empty`},
		{"10.0.0.0/8:http", `bad: ports "http" are no numbers`},
		{"10.0.0.0/8:80/sctp", `bad: unknown protocol "sctp": tcp or udp`},
		{"10.0.0.0/8/tpc", `bad: unknown protocol "tpc": did you mean "tcp"?`},
		{"db.example.com:80", "bad: not an IP network: names are not resolved"},
		{"db/tcp", "bad: not an IP network: a VIP is named as it is called"},
		{"[fd00::]/8:80", "bad: the prefix length stands in the brackets"},
		{"[10.0.0.0/8]:80", "bad: an IPv4 network stands without brackets"},
		{"[fd00::/8", `bad: a "[" without "]"`},
		{"[fd00::/8]80", `bad: after "]" comes ":"`},
		{"::ffff:10.0.0.0/104", "bad: a v4-mapped address"},
		{"fe80::1%eth0", "bad: "},
	} {
		got, refused := parseTarget(tt.text)
		text := got.String()
		if refused != nil {
			text = "bad: " + strings.TrimPrefix(strings.TrimPrefix(refused.message, "target "+quote(tt.text)+": "), "network "+quote(tt.text)+": ") + ": " + refused.hint
		}
		if bad := strings.HasPrefix(tt.want, "bad: "); text != tt.want && !(bad && strings.HasPrefix(text, tt.want)) {
			t.Errorf("%s: %s, want %s", tt.text, text, tt.want)
		}
		if refused == nil {
			if again, refused := parseTarget(text); refused != nil || again != got {
				t.Errorf("%s: %s is read as %s, %v", tt.text, text, again, refused)
			}
		}
	}
}

func TestRefusePolicy(t *testing.T) {
	rule := func(keys string) string {
		return okGroups + okVIP + okBack + "[[policy.rule]]\n" + keys + "\n"
	}
	const from, to, action = "from = [\"web\"]\n", "to = [\"db\"]\n", "action = \"deny\"\n"
	for _, tt := range []struct {
		name, text string
		want       string // of the message or hint; "" = OK
	}{
		{"OK default", "[policy]\ndefault = \"deny\"\n", ""},
		{"OK rule", rule(from + to + action), ""},
		{"OK everything", rule("from = [\"web\", \"host\"]\nto = [\"db+backends\", \"10.0.0.0/8:1-2/udp\"]\naction = \"audit\""), ""},
		{"OK any", rule("from = [\"any\"]\n" + to + action), ""},
		{"bad default", "[policy]\ndefault = \"audit\"\n", `default in [policy]: "audit" is not known`},
		{"bad default typo", "[policy]\ndefault = \"dney\"\n", `did you mean "deny"?`},
		{"bad default type", "[policy]\ndefault = true\n", "must be a string, not a boolean"},
		{"bad key", "[policy]\nrules = []\n", `did you mean "rule"?`},
		{"bad rule type", "[policy.rule]\n", "write [[policy.rule]]"},
		{"bad rule key", rule(from + to + action + "too = []"), `unknown key "too" in [[policy.rule]]`},
		{"bad no from", rule(to + action), "does not say from whom"},
		{"bad empty from", rule("from = []\n" + to + action), "does not say from whom"},
		{"bad no to", rule(from + action), "does not say where to"},
		{"bad no action", rule(from + to), "has no action"},
		{"bad action", rule(from + to + "action = \"reject\""), "one of allow, deny, audit"},
		{"bad from", rule("from = [\"wbe\"]\n" + to + action), `did you mean "web"?`},
		{"bad from twice", rule("from = [\"web\", \"web\"]\n" + to + action), "stands twice in from"},
		{"bad from child", rule("from = [\"web/1.scope\"]\n" + to + action), `write "web"`},
		{"bad from daemon", rule("from = [\"@daemon\"]\n" + to + action), `unknown group "@daemon"`},
		{"bad from type", rule("from = \"web\"\n" + to + action), `write it as ["web"]`},
		{"bad VIP", rule(from + "to = [\"dv\"]\n" + action), `did you mean "db"?`},
		{"bad nothing", rule(from + "to = [\"\"]\n" + action), `target "" names nothing`},
		{"bad backends of nothing", rule(from + "to = [\"+backends\"]\n" + action), `target "+backends" names nothing`},
		{"bad VIP is a group", rule(from + "to = [\"proxy\"]\n" + action), "it is a group"},
		{"bad network", rule(from + "to = [\"10.0.0.1/8\"]\n" + action), "write 10.0.0.0/8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("a.toml", []byte(tt.text))
			if ok := strings.HasPrefix(tt.name, "OK "); ok != (tt.want == "") {
				t.Fatal("the row's name and its want differ")
			}
			switch {
			case err == nil && tt.want != "":
				t.Fatal("not refused")
			case err != nil && (tt.want == "" || !strings.Contains(errorText(err), tt.want)):
				t.Fatalf("does not say %q:\n%s", tt.want, errorText(err))
			}
		})
	}
}

// Ten thousand rules, and more, are read; too many are refused where they begin
// to be.
func TestManyRules(t *testing.T) {
	text := func(n int) []byte {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "[[policy.rule]]\nfrom=[\"any\"]\nto=[\"10.%d.%d.%d\"]\naction=\"deny\"\n", i>>16, i>>8&255, i&255)
		}
		return []byte(b.String())
	}
	c, err := Parse("a.toml", text(maxRules))
	if err != nil {
		t.Fatal(errorText(err))
	}
	if len(c.Policy.Rules) != maxRules {
		t.Errorf("%d rules", len(c.Policy.Rules))
	}
	if _, err = Parse("a.toml", text(maxRules+1)); err == nil || !strings.Contains(errorText(err), fmt.Sprintf("a.toml:%d:3: error: more than 16384 rules", 4*maxRules+1)) {
		t.Errorf("one more: %v", err)
	}
}

// anyPolicy draws a valid policy over what c has.
func anyPolicy(t *rapid.T, c *Config, at Position) Policy {
	p := Policy{Default: rapid.SampledFrom([]RuleAction{Allow, Deny}).Draw(t, "default"), Origin: at}
	from := []string{AnyGroup, hostGroup}
	for _, g := range c.Groups {
		from = append(from, g.Name)
	}
	to := []string{"10.0.0.0/8", "fd00::/8", "192.0.2.1"}
	for _, v := range c.VIPs {
		to = append(to, v.Name)
	}
	for range rapid.IntRange(0, 4).Draw(t, "rules") {
		r := Rule{Action: rapid.SampledFrom([]RuleAction{Allow, Deny, Audit}).Draw(t, "action"), Origin: at,
			From: rapid.SliceOfNDistinct(rapid.SampledFrom(from), 1, len(from), rapid.ID).Draw(t, "from")}
		for _, name := range rapid.SliceOfN(rapid.SampledFrom(to), 1, 4).Draw(t, "to") {
			target := Target{Origin: at}
			if prefix, err := netip.ParsePrefix(name); err == nil {
				target.Prefix = prefix
			} else if addr, err := netip.ParseAddr(name); err == nil {
				target.Prefix = netip.PrefixFrom(addr, addr.BitLen())
			} else {
				target.VIP, target.Backends = name, rapid.Bool().Draw(t, "backends")
				r.To = append(r.To, target)
				continue
			}
			target.High = 65535
			if rapid.Bool().Draw(t, "has ports") {
				target.Low = rapid.Uint16Range(1, 65535).Draw(t, "low")
				target.High = rapid.Uint16Range(target.Low, 65535).Draw(t, "high")
			}
			target.Proto = rapid.SampledFrom([]Proto{0, TCP, UDP}).Draw(t, "protocol")
			r.To = append(r.To, target)
		}
		p.Rules = append(p.Rules, r)
	}
	return p
}
