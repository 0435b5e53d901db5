package prose

import (
	"strings"
	"testing"
)

func TestForeign(t *testing.T) {
	for in, want := range map[string]string{
		"web.slice":           "web.slice",
		`a\x2db.slice`:        `a\x2db.slice`,
		"a b":                 `"a b"`,
		"x\x1b[31m":           `"x\x1b[31m"`,
		"new\nline":           `"new\nline"`,
		`quo"te`:              `"quo\"te"`,
		"\u202etxt":           `"\u202etxt"`,
		"":                    "",
		"bad\xffutf8.service": `"bad\xffutf8.service"`,
	} {
		if got := Foreign(in); got != want {
			t.Errorf("Foreign(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"a sentence, with spaces": "a sentence, with spaces",
		"new\nline\x1b[2J":        "new?line?[2J",
		"\u202etxt":               "?txt",
	} {
		if got := OneLine(in); got != want {
			t.Errorf("OneLine(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestBrief(t *testing.T) {
	for in, want := range map[string]string{
		"a b": `"a b"`, strings.Repeat("x", 200): strings.Repeat("x", 200),
		strings.Repeat("x", 201): strings.Repeat("x", 200) + "...",
		strings.Repeat("ü", 101): `"` + strings.Repeat("ü", 100) + `"...`,
	} {
		if got := Brief(in); got != want {
			t.Errorf("Brief(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestSome(t *testing.T) {
	list := strings.Split("a b\n c d e f g h i j k l", " ")
	for n, want := range map[int]string{
		0: "", 2: `a "b\n"`, 10: `a "b\n" c d e f g h i j`, 12: `a "b\n" c d e f g h i j and 2 more`,
	} {
		if got := Some(list[:n]); got != want {
			t.Errorf("Some of %d: %q, want %q", n, got, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{Plural(0, "VIP"), "0 VIPs"}, {Plural(1, "VIP"), "1 VIP"}, {Plural(2, "VIP"), "2 VIPs"},
		{Times(0), "0 times"}, {Times(1), "once"}, {Times(2), "2 times"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}
