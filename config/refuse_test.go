package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// A VIP, a group and a backend that nothing refuses, around what a row adds.
const (
	okGroups = "[group.web]\nslices = [\"web.slice\"]\n[group.proxy]\nslices = [\"proxy.slice\"]\ntranslate = false\n"
	okVIP    = "[vip.db]\nfrontends = [\"10.96.0.10:5432\"]\n"
	okBack   = "[[vip.db.backend]]\naddress = \"192.0.2.11:5432\"\n"
)

func group(slices string) string { return "[group.x]\nslices = [" + slices + "]\n" }

func frontends(list string) string { return "[vip.db]\nfrontends = [" + list + "]\n" }

func backend(keys string) string { return okVIP + "[[vip.db.backend]]\n" + keys + "\n" }

func unit(unit, address string) string {
	return backend(fmt.Sprintf("unit = %q\naddress = %q", unit, address))
}

func health(keys string) string { return okVIP + okBack + "[vip.db.health]\n" + keys + "\n" }

func TestRefuse(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       string // of the message or hint; "" = OK
	}{
		{"OK empty", "", ""},
		{"OK comment", "# nothing\n", ""},
		{"OK all", okGroups + okVIP + okBack, ""},

		{"bad TOML", "[vip\n", "not TOML"},
		{"bad NUL", "a = \"\x00\"\n", "not TOML"},
		{"a byte order mark", "\xef\xbb\xbfa = 1\n", "begins with a byte order mark"},
		{"UTF-16", "\xff\xfea\x00", "is UTF-16, not UTF-8"},
		{"bad UTF-8", "a = \"\xff\"\n", "not TOML"},
		{"bad nesting", "a = " + strings.Repeat("[", 20000) + "\n", "not TOML"},
		{"bad depth", "a = " + strings.Repeat("[", 20) + strings.Repeat("]", 20) + "\n", "nested too deep"},
		{"bad long key", strings.Repeat("a.", 20) + "a = 1\n", "more than 16 parts"},
		{"bad long header", "[" + strings.Repeat("a.", 20) + "a]\n", "more than 16 parts"},
		{"bad key twice", "[daemon]\nslots = 8192\nslots = 8192\n", "set twice"},
		{"bad table twice", "[daemon]\n[daemon]\n", "stands twice in this file"},
		{"bad table and array", "[vip.a]\n[[vip.a]]\n", "not TOML"},
		{"bad integer", "[daemon]\nslots = 99999999999999999999\n", "not TOML"},
		{"bad unknown table", "[vips.db]\n", `did you mean "vip"?`},
		{"bad scalar for table", "vip = 3\n", "vip must be a table, not an integer"},
		{"bad array for table", "[[group]]\n", "group must be a table, not an array"},

		{"OK daemon", "[daemon]\nlog_level = \"warn\"\nslots = 4096\nudp_flows = 4096\n", ""},
		{"OK http", "[daemon]\nhttp = \"[::1]:9781\"\n", ""},
		{"OK http off", "[daemon]\nhttp = \"\"\n", ""},
		{"OK http everywhere", "[daemon]\nhttp = \"0.0.0.0:9781\"\n", ""},
		{"OK most slots", "[daemon]\nslots = 268435456\n", ""},
		{"bad slots", "[daemon]\nslots = 268435457\n", "slots in [daemon] must be from 4096 to 268435456"},
		{"bad negative slots", "[daemon]\nslots = -1\n", "not -1"},
		{"bad float slots", "[daemon]\nslots = 8192.0\n", "must be an integer, not a float"},
		{"bad udp_flows", "[daemon]\nudp_flows = 1\n", "udp_flows in [daemon] must be from"},
		{"bad log_level", "[daemon]\nlog_level = \"verbose\"\n", "one of debug, info, warn, error"},
		{"bad log_level type", "[daemon]\nlog_level = 2020-01-01\n", "must be a string, not a date"},
		{"bad http name", "[daemon]\nhttp = \"localhost:9781\"\n", `names are not resolved`},
		{"bad http port", "[daemon]\nhttp = \"127.0.0.1:0\"\n", `port 0 is not from 1 to 65535`},
		{"bad http, no address", "[daemon]\nhttp = \":9781\"\n", `http = "127.0.0.1:9781"`},
		{"bad http, no port", "[daemon]\nhttp = \"127.0.0.1\"\n", `no port`},
		{"bad http, a URL", "[daemon]\nhttp = \"http://127.0.0.1:9781\"\n", `not an IP address`},
		{"bad http, a group's address", "[daemon]\nhttp = \"224.0.0.1:9781\"\n", `a multicast address`},
		{"bad http, no text", "[daemon]\nhttp = 9781\n", `http in [daemon] must be a string`},

		{"OK name", "[group.a-b_c9]\nslices = [\"a.slice\"]\n", ""},
		{"OK longest name", "[group." + strings.Repeat("a", 63) + "]\nslices = [\"a.slice\"]\n", ""},
		{"bad longer name", "[group." + strings.Repeat("a", 64) + "]\nslices = [\"a.slice\"]\n", "bad group name"},
		{"bad name", "[group.Web]\nslices = [\"a.slice\"]\n", `bad group name "Web"`},
		{"bad name end", "[group.a-]\nslices = [\"a.slice\"]\n", "bad group name"},
		{"bad empty name", "[group.\"\"]\nslices = [\"a.slice\"]\n", "bad group name"},
		{"bad group host", "[group.host]\nslices = [\"a.slice\"]\n", `a group cannot be named "host"`},
		{"bad VIP any", "[vip.any]\nfrontends = [\"10.0.0.1:1\"]\n", `a VIP cannot be named "any"`},
		{"bad name with newline", "[group.\"a\\nb\"]\nslices = [\"a.slice\"]\n", `bad group name "a\nb"`},

		{"OK slices", group(`"a.slice", "a-b.slice", "-.slice", "/x/y", "/n/*/x.scope", "w-*.slice"`), ""},
		{"OK escaped slice", group(`'a\x2db.slice'`), ""},
		{"OK level 31", group(`"` + strings.Repeat("/a", 31) + `"`), ""},
		// edge D23
		{"bad level 32", group(`"` + strings.Repeat("/a", 32) + `"`), "deeper than level 31"},
		{"bad no slices", "[group.x]\n", "[group.x] names no slices"},
		{"bad empty slices", group(""), "names no slices"},
		{"bad slices type", "[group.x]\nslices = \"a.slice\"\n", `write it as ["a.slice"]`},
		{"bad slices element", group("1"), "slices in [group.x] must hold strings, not an integer"},
		{"bad slices nested", group(`["a.slice"]`), "must hold strings, not an array"},
		{"bad slice suffix", group(`"web"`), `did you mean "web.slice"?`},
		{"bad slice scope", group(`"x.scope"`), `"/system.slice/x.scope"`},
		{"bad slice relative", group(`"a/b.slice"`), `write "/a/b.slice"`},
		{"bad slice unclean", group(`"/a//b/"`), `write "/a/b"`},
		{"bad slice parent", group(`"/a/../b"`), "not a clean path"},
		{"bad slice empty", group(`""`), "empty"},
		{"bad slice dashes", group(`"a--b.slice"`), "dashes"},
		{"bad slice template", group(`"a@.slice"`), "cannot stand in a slice's name"},
		{"bad slice class", group(`"/a/[b"`), "the glob"},
		{"bad slice newline", group(`"/a\nb"`), "no newline"},
		{"bad slice component", group(`"/` + strings.Repeat("a", 256) + `"`), "longer than 255 bytes"},
		{"bad slice path", group(`"` + strings.Repeat("/"+strings.Repeat("a", 200), 25) + `"`), "longer than a path"},
		{"bad slice twice", group(`"a.slice", "/a.slice"`), "stands twice in group.x, first at a.toml:2:11"},
		{"bad slice in two groups", okGroups + group(`"/web.slice"`), "belongs to group.web already: a.toml:2:11"},
		{"bad inexact patterns", group(`"/*a*", "/*b*", "/*c*", "/*d*", "/*e*", "/*f*", "/*g*"`), "below one directory"},

		{"OK split", group(`"a.slice"`) + "split = \"*.scope\"\n", ""},
		{"bad split path", group(`"a.slice"`) + "split = \"x/*.scope\"\n", `write "*.scope"`},
		{"bad split glob", group(`"a.slice"`) + "split = \"[\"\n", "not complete"},
		{"OK split_metrics", group(`"a.slice"`) + "split = \"*.scope\"\nsplit_metrics = 1000\n", ""},
		{"bad split_metrics", group(`"a.slice"`) + "split = \"*.scope\"\nsplit_metrics = 1001\n", "split_metrics in [group.x] must be from 0 to 1000, not 1001"},
		{"bad split empty", group(`"a.slice"`) + "split = \"\"\n", "empty"},
		{"bad translate", group(`"a.slice"`) + "translate = \"no\"\n", "must be a boolean, not a string"},
		{"bad strict", group(`"a.slice"`) + "strict = 1\n", "must be a boolean, not an integer"},
		{"OK group policy", group(`"a.slice"`) + "policy = \"deny\"\nstrict = true\n", ""},
		{"bad group policy", group(`"a.slice"`) + "policy = \"audit\"\n", `policy in [group.x]: "audit" is not known`},
		{"bad group key", group(`"a.slice"`) + "slice = []\n", `did you mean "slices"?`},

		{"OK frontends", frontends(`"127.0.0.1:1", "[::1]:65535/udp", "10.0.0.1:53/tcp", "10.0.0.1:53/udp"`), ""},
		{"bad no frontends", "[vip.db]\n", "[vip.db] has no frontends"},
		{"bad port 0", frontends(`"10.0.0.1:0"`), "port 0 is not from 1 to 65535"},
		{"bad port 70000", frontends(`"10.0.0.1:70000"`), "port 70000 is not from 1 to 65535"},
		{"bad long port", frontends(`"10.0.0.1:99999999999999999999"`), "is not from 1 to 65535"},
		{"bad port with a zero", frontends(`"10.0.0.1:080"`), "write 10.0.0.1:80"},
		{"bad port with a zero, IPv6", frontends(`"[fd00::1]:080/udp"`), "write [fd00::1]:80"},
		{"bad address with a zero", frontends(`"10.0.0.01:80"`), "write 10.0.0.1:80: numbers do not begin with a zero"},
		{"bad address with zeros alone", frontends(`"10.00.0.1:80"`), "write 10.0.0.1:80"},
		{"bad address, zero or not", frontends(`"10.0.0.0256:80"`), "not an IP address"},
		{"bad port name", frontends(`"10.0.0.1:http"`), "the port is not a number"},
		{"bad port sign", frontends(`"10.0.0.1:+80"`), "the port is not a number"},
		{"bad no port", frontends(`"10.0.0.1"`), "no port"},
		{"bad empty port", frontends(`"10.0.0.1:"`), "no port"},
		{"bad host name", frontends(`"db.example:80"`), "names are not resolved"},
		{"bad no address", frontends(`":80"`), "no address"},
		{"bad short address", frontends(`"10.0.1:80"`), "not an IP address"},
		{"bad IPv6 without port", frontends(`"fd00::1"`), "[fd00::1]:5432"},
		{"bad IPv6 without brackets", frontends(`"fd00::1:x:80"`), "not an IP address"},
		{"bad bracket", frontends(`"[fd00::1:80"`), `a "[" without "]"`},
		{"bad after bracket", frontends(`"[fd00::1]80"`), `after "]"`},
		{"bad IPv4 in brackets", frontends(`"[10.0.0.1]:80"`), "write 10.0.0.1:80"},
		{"bad zone", frontends(`"[fe80::1%eth0]:80"`), "zone"},
		{"bad v4-mapped frontend", frontends(`"[::ffff:10.0.0.1]:80"`), "write 10.0.0.1:80"},
		{"bad protocol", frontends(`"10.0.0.1:80/sctp"`), "unknown protocol"},
		{"bad unspecified", frontends(`"0.0.0.0:80"`), "unspecified"},
		{"bad unspecified IPv6", frontends(`"[::]:80"`), "unspecified"},
		{"bad multicast", frontends(`"224.0.0.1:80"`), "multicast"},
		{"bad multicast IPv6", frontends(`"[ff02::1]:80"`), "multicast"},
		{"bad broadcast", frontends(`"255.255.255.255:80"`), "broadcast"},
		{"bad frontend twice", frontends(`"10.0.0.1:80", "10.0.0.1:80/tcp"`), "stands twice in vip.db, first at a.toml:2:14"},
		{"bad frontend of another", okVIP + "[vip.other]\nfrontends = [\"10.96.0.10:5432\"]\n", "belongs to vip.db already: a.toml:2:14"},
		{"OK other protocol", okVIP + "[vip.other]\nfrontends = [\"10.96.0.10:5432/udp\"]\n", ""},

		{"OK no backends", okVIP, ""},
		{"OK empty backends", okVIP + "backend = []\n", ""},
		{"OK identity", backend(`address = "10.96.0.10:5432"`), ""},
		{"OK weight 0", backend("address = \"192.0.2.1:1\"\nweight = 0"), ""},
		{"OK weight 65535", backend("address = \"192.0.2.1:1\"\nweight = 65535"), ""},
		{"bad weight", backend("address = \"192.0.2.1:1\"\nweight = 65536"), "must be from 0 to 65535, not 65536"},
		{"bad weight type", backend("address = \"192.0.2.1:1\"\nweight = \"3\""), "must be an integer, not a string"},
		{"bad backend without address", backend("weight = 1"), "[[vip.db.backend]] has no address"},
		{"bad backend address type", backend("address = 1"), "must be a string"},
		{"bad backend port 0", backend(`address = "192.0.2.1:0"`), "port 0 is not"},
		{"bad backend protocol", backend(`address = "192.0.2.1:1/udp"`), `write "192.0.2.1:1"`},
		{"bad backend unspecified", backend(`address = "0.0.0.0:1"`), "unspecified"},
		{"bad backend multicast", backend(`address = "[ff02::1]:1"`), "multicast"},
		{"bad backend link-local", backend(`address = "[fe80::1]:1"`), "link-local"},
		// path P9
		{"bad backend v4-mapped", backend(`address = "[::ffff:192.0.2.1]:1"`), "a v4-mapped address"},

		{"OK unit", unit("pg.service", "127.0.0.1:5432"), ""},
		{"OK unit instance", unit("pg@5432.service", "127.0.0.1:%i"), ""},
		{"OK unit template", unit("pg@*.service", "127.0.0.1:%i"), ""},
		{"OK unit address is the instance", unit("pg@*.service", "%i"), ""},
		{"OK unit host is the instance", unit("pg@*.service", "%i:5432"), ""},
		{"OK unit end of the host", unit("pg@*.service", "10.0.0.%i:5432"), ""},
		{"OK unit v6", frontends(`"[fd00::1]:80"`) + "backend = [{ unit = \"pg@*.service\", address = \"[fd00::%i]:80\" }]\n", ""},
		{"OK unit socket", unit("pg@*.socket", "127.0.0.1:%i"), ""},
		{"OK units with one address", unit("blue.service", "127.0.0.1:1") + "[[vip.db.backend]]\nunit = \"green.service\"\naddress = \"127.0.0.1:1\"\n", ""},
		{"OK units and a static one", unit("pg@*.service", "127.0.0.1:%i") + "[[vip.db.backend]]\naddress = \"127.0.0.1:1\"\n", ""},
		{"bad unit type", backend("unit = 1\naddress = \"127.0.0.1:1\""), "must be a string"},
		{"bad unit without address", backend(`unit = "pg.service"`), "[[vip.db.backend]] has no address"},
		{"bad unit suffix", unit("pg", "127.0.0.1:1"), `write "pg.service"`},
		{"bad unit kind", unit("pg.slice", "127.0.0.1:1"), "is no service, socket or scope"},
		{"bad unit empty", unit("", "127.0.0.1:1"), "is no service, socket or scope"},
		{"bad unit of a type alone", unit(".service", "127.0.0.1:1"), "cannot be a unit's name"},
		{"bad unit path", unit("a/b.service", "127.0.0.1:1"), "cannot be a unit's name"},
		{"bad unit wildcard", unit("pg@?.service", "127.0.0.1:%i"), `"*" is the only wildcard`},
		{"bad unit specifier", unit("pg@%i.service", "127.0.0.1:%i"), "a name, not a specifier"},
		{"bad unit bare template", unit("pg@.service", "127.0.0.1:%i"), `write "pg@*.service"`},
		{"bad unit instance of no template", unit("pg.service", "127.0.0.1:%i"), `"pg.service" has no instance`},
		{"bad unit glob of no template", unit("pg-*.service", "127.0.0.1:%i"), `"pg-*.service" has no instance`},
		{"its hint", unit("pg-*.service", "127.0.0.1:%i"), `unit = "pg-@*.service"`},
		{"bad unit glob with one address", unit("pg@*.service", "127.0.0.1:5432"), `the same for each of "pg@*.service"`},
		{"bad unit instance makes no address", unit("pg@x.service", "127.0.0.1:%i"), `the port is not a number`},
		{"bad unit no instance makes an address", unit("pg@*.service", "127.0.0.1%i"), "no instance makes it ADDRESS:PORT"},
		{"bad unit other specifier", unit("pg@*.service", "%H:%i"), "is the only specifier"},
		{"bad unit twice", unit("pg@*.service", "127.0.0.1:%i") + "[[vip.db.backend]]\nunit = \"pg@*.service\"\naddress = \"127.0.0.1:%i\"\n", "stands twice in vip.db, first at a.toml:4:8"},
		{"bad unit beside its address", unit("pg.service", "127.0.0.1:1") + "[[vip.db.backend]]\naddress = \"127.0.0.1:1\"\n", "stands in vip.db in any case: a.toml:7:11"},
		{"bad unit family", frontends(`"10.0.0.1:80", "[fd00::1]:80"`) + "backend = [{ unit = \"pg@*.service\", address = \"127.0.0.1:%i\" }]\n", "frontend [fd00::1]:80 has no IPv6 backend"},
		{"bad unit of the other family", frontends(`"10.0.0.1:80", "[fd00::1]:80"`) + "backend = [{ unit = \"pg@*.service\", address = \"%i:80\" }]\n", "frontend [fd00::1]:80 has no IPv6 backend"},

		{"OK drain_timeout", okVIP + "drain_timeout = \"5m\"\n", ""},
		{"bad drain_timeout", okVIP + "drain_timeout = \"25h\"\n", "from 0s to 24h"},
		{"bad backend twice", okVIP + okBack + okBack, "stands twice in vip.db, first at a.toml:4:11"},
		{"bad backend table", okVIP + "[vip.db.backend]\naddress = \"192.0.2.1:1\"\n", "write [[vip.db.backend]]"},
		{"bad backend array", okVIP + "backend = [\"192.0.2.1:1\"]\n", "must hold tables, not a string"},
		{"bad backend string", okVIP + "backend = \"192.0.2.1:1\"\n", "must be an array of tables, not a string"},
		{"bad backend key", backend("address = \"192.0.2.1:1\"\nwieght = 2"), `did you mean "weight"?`},
		// edge D19
		{"bad family", frontends(`"10.0.0.1:80", "[fd00::1]:80"`) + okBack, "frontend [fd00::1]:80 has no IPv6 backend"},
		{"bad other family", frontends(`"10.0.0.1:80"`) + "backend = [{ address = \"[fd00::2]:80\" }]\n", "frontend 10.0.0.1:80 has no IPv4 backend"},
		{"bad family of a view", okGroups + frontends(`"10.0.0.1:80"`) + okBack + "[vip.db.for.web]\nbackend = [{ address = \"[fd00::2]:80\" }]\n", "vip.db.for.web has IPv6 ones only"},
		{"OK families", frontends(`"10.0.0.1:80", "[fd00::1]:80"`) + "backend = [{ address = \"192.0.2.1:1\" }, { address = \"[fd00::2]:80\" }]\n", ""},

		{"OK algorithm", okVIP + "algorithm = \"random\"\n", ""},
		{"OK maglev", okVIP + "algorithm = \"maglev\"\n", ""},
		{"OK least-connections", okVIP + "algorithm = \"least-connections\"\n[vip.db.health]\ntype = \"tcp\"\n", ""},
		{"bad algorithm", okVIP + "algorithm = \"randm\"\n", `did you mean "random"?`},
		{"OK affinity", okVIP + "affinity = \"10m\"\n", ""},
		{"bad affinity", okVIP + "affinity = \"500ms\"\n", "from 1s to 24h"},
		{"bad affinity part", okVIP + "affinity = \"1.5s\"\n", "affinity 1.5s in [vip.db]: whole seconds only"},
		{"OK terminate", okVIP + "terminate = \"none\"\n", ""},
		{"bad terminate", okVIP + "terminate = \"tcp\"\n", "one of udp, all, none"},
		{"OK reject_unknown_ports", okVIP + "reject_unknown_ports = true\n", ""},
		{"bad reject_unknown_ports", okVIP + "reject_unknown_ports = 1\n", "must be a boolean"},
		{"bad reject_unknown_ports twice", "[vip.a]\nfrontends = [\"10.0.0.1:80\"]\nreject_unknown_ports = true\n[vip.b]\nfrontends = [\"10.0.0.1:81\"]\nreject_unknown_ports = true\n",
			"vip.b has the address 10.0.0.1 in common with vip.a, which has reject_unknown_ports already: a.toml:"},
		{"OK health", health(""), ""},
		{"OK health all", health("type = \"https\"\ninterval = \"100ms\"\ntimeout = \"10ms\"\nfall = 1\nrise = 100\ninitial = \"up\"\npanic_threshold = 0\nslow_start = \"1h\"\n" +
			"path = \"/\"\nhost = \"a.example.com:8443\"\nexpect = \"200, 300-399\"\nheaders = { A = \"b c\" }\ninsecure = true"), ""},
		{"OK health short interval", health("interval = \"500ms\""), ""},
		{"OK health host address", health("type = \"http\"\nhost = \"2001:db8::1\""), ""},
		{"bad health type", health("type = \"htp\""), `did you mean "http"?`},
		{"bad health key", health("intervall = \"2s\""), `did you mean "interval"?`},
		{"OK health passive", health("passive = true"), ""},
		{"bad health passive", health("passive = 1"), "passive in [vip.db.health] must be"},
		{"bad health table", okVIP + "health = true\n", "vip.db.health must be a table, not a boolean"},
		{"bad health of a view", okGroups + okVIP + "[vip.db.for.web.health]\n", `unknown key "health" in [vip.db.for.web]`},
		{"bad interval", health("interval = \"2\""), `interval "2" in [vip.db.health] is no duration`},
		{"bad interval type", health("interval = 2"), "must be a string, not an integer"},
		{"bad short interval", health("interval = \"99ms\""), "must be from 100ms to 1h, not 99ms"},
		{"bad long interval", health("interval = \"61m\""), "must be from 100ms to 1h, not 1h1m"},
		{"bad timeout", health("timeout = \"3s\""), "must not be longer than the interval, 2s"},
		{"bad fall", health("fall = 0"), "fall in [vip.db.health] must be from 1 to 100"},
		{"bad initial", health("initial = \"unknown\""), "one of down, up"},
		{"bad panic_threshold", health("panic_threshold = 101"), "must be from 0 to 100"},
		{"bad slow_start", health("slow_start = \"-1s\""), "must be from 0s to 1h"},
		{"bad path of tcp", health("path = \"/x\""), `type = "http"`},
		{"bad ca_file of http", health("type = \"http\"\nca_file = \"/x\""), `type = "https"`},
		{"bad path", health("type = \"http\"\npath = \"healthz\""), `path = "/healthz"`},
		{"bad path with newline", health("type = \"http\"\npath = \"/ HTTP/1.1\\r\\nX: y\""), "is not the path of a request"},
		{"bad host", health("type = \"http\"\nhost = \"a b\""), "is neither a name nor an address"},
		{"bad host port", health("type = \"http\"\nhost = \"a:0\""), "is neither a name nor an address"},
		{"bad expect", health("type = \"http\"\nexpect = \"2xx\""), `"2xx" is no status from 200 to 599`},
		{"bad expect interim", health("type = \"http\"\nexpect = \"100-200\""), "is no status from 200 to 599"},
		{"bad expect order", health("type = \"http\"\nexpect = \"300-200\""), "is no status"},
		{"bad header name", health("type = \"http\"\nheaders = { \"a b\" = \"c\" }"), "is no header's name"},
		{"bad header value", health("type = \"http\"\nheaders = { a = \"b\\r\\nc: d\" }"), "is no header's value"},
		{"bad header host", health("type = \"http\"\nheaders = { Host = \"a\" }"), "host is a key of its own"},
		{"bad header twice", health("type = \"http\"\nheaders = { A = \"a\", a = \"b\" }"), "stands twice"},
		{"bad ca_file", health("type = \"https\"\nca_file = \"ca.pem\""), "is not an absolute path"},
		{"bad ca_file and insecure", health("type = \"https\"\nca_file = \"/ca.pem\"\ninsecure = true"), "does nothing with insecure = true"},
		{"bad discover", okVIP + "[vip.db.discover.nomad]\nservice = \"x\"\n", `"discover" in [vip.db] is not supported by this version`},
		{"bad when_down", okVIP + "when_down = \"use_all\"\n", `did you mean "use-all"?`},
		{"bad hidden", okVIP + "hidden = \"drop\"\n", "one of pass, reject"},
		{"bad VIP key", okVIP + "algoritm = \"random\"\n", `did you mean "algorithm"?`},

		{"OK clients", okGroups + okVIP + "clients = [\"web\", \"host\"]\nexcept = [\"proxy\"]\n", ""},
		{"OK nobody", okVIP + "clients = []\n", ""},
		{"bad client", okGroups + okVIP + "clients = [\"wbe\"]\n", `did you mean "web"?`},
		{"bad client any", okVIP + "clients = [\"any\"]\n", `unknown group "any" in clients of vip.db`},
		{"bad except", okVIP + "except = [\"none\"]\n", `unknown group "none" in except of vip.db`},
		{"bad client twice", okGroups + okVIP + "clients = [\"web\", \"web\"]\n", "stands twice in clients"},
		{"bad client and except", okGroups + okVIP + "clients = [\"web\"]\nexcept = [\"web\"]\n", "stands in both clients (a.toml:8:12) and except"},
		{"bad clients type", okVIP + "clients = true\n", "must be an array of strings, not a boolean"},

		{"OK for", okGroups + okVIP + "[vip.db.for.web]\nwhen_down = \"pass\"\n", ""},
		{"OK for host", okVIP + "[vip.db.for.host]\n", ""},
		{"bad for", okVIP + "[vip.db.for.web]\n", `unknown group "web" in vip.db.for`},
		{"bad for of except", okGroups + okVIP + "except = [\"web\"]\n[vip.db.for.web]\n", "it stands in except (a.toml:8:11)"},
		{"bad for of a stranger", okGroups + okVIP + "clients = [\"host\"]\n[vip.db.for.web]\n", "it is not among clients (a.toml:8:1)"},
		{"bad for of untranslated", okGroups + okVIP + "[vip.db.for.proxy]\n", "it has translate = false (a.toml:3:2)"},
		{"bad for key", okGroups + okVIP + "[vip.db.for.web]\nhidden = \"pass\"\n", `unknown key "hidden" in [vip.db.for.web]`},
		{"bad for type", okGroups + okVIP + "for = [\"web\"]\n", "vip.db.for must be a table, not an array"},
		{"bad view backend twice", okGroups + okVIP + "[vip.db.for.web]\nbackend = [{ address = \"192.0.2.1:1\" }, { address = \"192.0.2.1:1\" }]\n", "stands twice in vip.db.for.web"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse("a.toml", []byte(tt.text))
			if ok := strings.HasPrefix(tt.name, "OK "); ok != (tt.want == "") {
				t.Fatal("the row's name and its want differ")
			}
			if tt.want == "" {
				if err != nil {
					t.Fatal(errorText(err))
				}
				return
			}
			if c != nil || err == nil {
				t.Fatal("not refused")
			}
			if text := errorText(err); !strings.Contains(text, tt.want) {
				t.Errorf("does not say %q:\n%s", tt.want, text)
			}
			var bad *Error
			if errors.As(err, &bad); len(bad.Problems) != 1 {
				t.Errorf("%d problems, want 1:\n%s", len(bad.Problems), errorText(err))
			}
		})
	}
}

// errorText is what a person sees.
func errorText(err error) string {
	var bad *Error
	if !errors.As(err, &bad) {
		return err.Error()
	}
	var b strings.Builder
	if _, err := bad.WriteTo(&b); err != nil {
		return err.Error()
	}
	return b.String()
}
