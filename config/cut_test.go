package config

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fault F18: a file that was cut anywhere is refused whole, or is what its text
// says; never a panic, never a value of which a part is missing.
func TestCut(t *testing.T) {
	text, err := os.ReadFile("testdata/whole.toml")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := Parse("whole.toml", text)
	if err != nil {
		t.Fatal(errorText(err))
	}
	accepted := 0
	for n := range text {
		c, err := Parse("whole.toml", text[:n])
		if err != nil {
			if c != nil {
				t.Fatalf("cut at %d: a configuration beside an error", n)
			}
			continue
		}
		accepted++
		// What is there is what the whole file begins with.
		for i, g := range c.Groups {
			if whole.Groups[i].Name != g.Name {
				t.Fatalf("cut at %d: group %d is %s, want %s", n, i, g.Name, whole.Groups[i].Name)
			}
		}
		for _, v := range c.VIPs {
			if !bytes.Contains(text[:n], []byte("[vip."+v.Name+"]")) || len(v.Frontends) == 0 {
				t.Fatalf("cut at %d: vip.%s of %d frontends", n, v.Name, len(v.Frontends))
			}
		}
		// An accepted cut is a value like any other.
		var b bytes.Buffer
		if err := c.Render(&b, false); err != nil {
			t.Fatal(err)
		}
		again, err := Parse("again", b.Bytes())
		if err != nil {
			t.Fatalf("cut at %d:\n%s", n, errorText(err))
		}
		if diff := cmp.Diff(c, again, noPlaces); diff != "" {
			t.Fatalf("cut at %d (-want +got):\n%s", n, diff)
		}
	}
	if lines := bytes.Count(text, []byte("\n")); accepted == 0 || accepted > len(text)/2 {
		t.Errorf("%d of %d cuts accepted, in %d lines", accepted, len(text), lines)
	}
}

// fault F27
func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("testdata/whole.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, s := range []string{
		"", "[vip.a]\nfrontends = [\"[::1]:1/udp\"]\n", "a.b.c = { d = [ { e = 1 } ] }\n",
		"[[vip.a.backend]]\n[vip.a]\n", "group.x.slices = ['a\\x2db.slice', \"/[a-z]*\"]\n",
		"\ufeff[daemon]\n", "[daemon]\r\nslots = 0x2000\r\n", "\"\\u0000\" = ''''''\n", "vip = { a = { for = {} } }\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err != nil {
			if c != nil || len(err.(*Error).Problems) == 0 {
				t.Fatal("neither refused nor accepted")
			}
			for _, p := range err.(*Error).Problems {
				if strings.ContainsAny(p.Message+p.SourceLine, "\x1b\n\r") || p.Span < 0 || p.Span > maxShown {
					t.Fatalf("not fit to show: %+v", p)
				}
			}
			_ = errorText(err)
			return
		}
		var b bytes.Buffer
		if err := c.Render(&b, true); err != nil {
			t.Fatal(err)
		}
		again, err := Parse("f", b.Bytes())
		if err != nil {
			t.Fatalf("rendered:\n%s\n%s", b.Bytes(), errorText(err))
		}
		if diff := cmp.Diff(c, again, noPlaces); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}
