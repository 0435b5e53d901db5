package prose

import "testing"

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
