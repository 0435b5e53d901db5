package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// TestPagesSayWhatIsValid asks the validation itself what each key of the
// reference may be, by values that cannot be right, and looks for its answer
// (bounds, words) where the key is explained: in the reference, on the user's
// page, in the manual.
func TestPagesSayWhatIsValid(t *testing.T) {
	data, err := os.ReadFile("../etc/slicelb.toml")
	if err != nil {
		t.Fatal(err)
	}
	reference := uncomment(string(data))
	page := readPage(t, "../docs/configuration.md")
	manual := readPage(t, "../packaging/man/slicelb.toml.5")
	var whole raw
	if _, err := toml.Decode(reference, &whole); err != nil {
		t.Fatal(err)
	}

	asked := 0
	eachKey(whole, "", func(table raw, path, key string) {
		kept := table[key]
		defer func() { table[key] = kept }()
		want := limits(t, whole, table, key)
		if len(want) == 0 {
			return
		}
		asked++
		for _, place := range []struct{ name, text string }{
			{"etc/slicelb.toml", inReference(string(data), key)},
			{"docs/configuration.md", onPage(page, key)},
			{"slicelb.toml(5)", inManual(manual, key)},
		} {
			text := strings.Join(strings.Fields(place.text), " ")
			for _, w := range want {
				if !slices.ContainsFunc(w, func(form string) bool { return strings.Contains(text, form) }) {
					t.Errorf("%s: %s is checked to be %q, which is not said where it is explained:\n%s", place.name, path+key, w[0], text)
				}
			}
		}
	})
	if asked < 15 {
		t.Errorf("only %d keys have limits: the questions are not understood any more", asked)
	}
}

// eachKey visits the keys of a table and of those below it that hold a value.
func eachKey(table raw, path string, visit func(table raw, path, key string)) {
	for _, key := range slices.Sorted(maps.Keys(table)) {
		switch v := table[key].(type) {
		case raw:
			eachKey(v, path+key+".", visit)
		case []raw:
			eachKey(v[0], path+key+".", visit)
		default:
			visit(table, path, key)
		}
	}
}

var (
	bounds   = regexp.MustCompile(`must be from (\S+) to (\S+), not`)
	oneOf    = regexp.MustCompile(`^one of (.*)$`)
	shorterT = "the interval" // what bounds a timeout, beside its own limit
)

// limits says what a key may be, as the validation tells it: each element is
// the ways to say one thing.
func limits(t *testing.T, whole, table raw, key string) (want [][]string) {
	t.Helper()
	seen := map[string]bool{}
	for _, nonsense := range []any{int64(-1), "~nonsense~", "999999h"} {
		table[key] = nonsense
		text, err := toml.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Parse("reference", text)
		var refused *Error
		if !errors.As(err, &refused) {
			continue
		}
		for _, p := range refused.Problems {
			if !strings.HasPrefix(p.Message, key+" ") {
				continue
			}
			if m := bounds.FindStringSubmatch(p.Message); m != nil && !seen[m[0]] {
				seen[m[0]] = true
				low, high := m[1], m[2]
				forms := []string{low + " to " + high, fmt.Sprintf("from %s to %s", low, high)}
				if low == "0s" || low == "0" {
					forms = append(forms, "up to "+high)
				}
				if key == "timeout" {
					forms = append(forms, low+" to "+shorterT)
				}
				want = append(want, forms)
			}
			if m := oneOf.FindStringSubmatch(p.Hint); m != nil {
				for word := range strings.SplitSeq(m[1], ", ") {
					if !seen[word] {
						seen[word] = true
						want = append(want, []string{`"` + word + `"`, "Cm " + word, ", " + word})
					}
				}
			}
		}
	}
	return want
}

func readPage(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// inReference is the comments in front of a key, wherever it stands, without
// the marks.
func inReference(text, key string) string {
	var found, block []string
	values := false // since the last comment
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "# "):
			if values {
				block, values = nil, false
			}
			block = append(block, strings.TrimPrefix(line, "# "))
		case strings.HasPrefix(line, "#"+key+" ="):
			found = append(found, block...)
			values = true
		case strings.HasPrefix(line, "#"):
			values = true
		default:
			block = nil
		}
	}
	return strings.Join(found, "")
}

// onPage is the rows and paragraphs that name a key.
func onPage(text, key string) string {
	var found []string
	for _, paragraph := range strings.Split(text, "\n\n") {
		if !strings.HasPrefix(paragraph, "|") {
			if strings.Contains(paragraph, "`"+key+"`") {
				found = append(found, paragraph)
			}
			continue
		}
		for row := range strings.Lines(paragraph) {
			if strings.Contains(row, "`"+key+"`") {
				found = append(found, row)
			}
		}
	}
	return strings.Join(found, "\n")
}

// inManual is the items of a key in a page of mdoc(7).
func inManual(text, key string) string {
	var found []string
	for _, item := range strings.Split(text, "\n.It ")[1:] {
		if strings.HasPrefix(item, "Ic "+key+"\n") {
			item, _, _ = strings.Cut(item, "\n.El")
			found = append(found, item)
		}
	}
	return strings.Join(found, "\n")
}

// The three ways to find an explanation find one, and only that.
func TestExplanations(t *testing.T) {
	const reference = "# Of a.\n# 1 to 2.\n#a = 1\n\n# Of b and c.\n#b = 2\n#c = 3\n# Of d.\n#d = 4\n"
	for key, want := range map[string]string{"a": "Of a.\n1 to 2.\n", "c": "Of b and c.\n", "d": "Of d.\n", "e": ""} {
		if got := inReference(reference, key); got != want {
			t.Errorf("inReference(%s) = %q, want %q", key, got, want)
		}
	}
	const page = "| `a` | 1 |\n| `b` | 2 |\n\nAlso `a`,\nin a paragraph.\n\nNot this.\n"
	if got, want := onPage(page, "a"), "| `a` | 1 |\n\nAlso `a`,\nin a paragraph."; got != want {
		t.Errorf("onPage = %q, want %q", got, want)
	}
	const manual = ".Bl\n.It Ic a\nOf a.\n.It Ic b\nOf b.\n.El\nAfter.\n"
	if got, want := inManual(manual, "b"), "Ic b\nOf b."; got != want {
		t.Errorf("inManual = %q, want %q", got, want)
	}
}

// TestDefaultsOnPages: what a configuration gets that does not say a key is
// what the reference and the user's page call its default.
func TestDefaultsOnPages(t *testing.T) {
	const least = "[group.jobs]\nslices = [\"jobs.slice\"]\n" +
		"[vip.db]\nfrontends = [\"10.96.0.10:5432\"]\n[[vip.db.backend]]\naddress = \"192.0.2.11:5432\"\n[vip.db.health]\ntype = \"https\"\n"
	c, err := Parse("least", []byte(least))
	if err != nil {
		t.Fatal(errorText(err))
	}
	reference, page := readPage(t, "../etc/slicelb.toml"), readPage(t, "../docs/configuration.md")
	var rendered strings.Builder
	if err := c.Render(&rendered, false); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range regexp.MustCompile(`(?m)^([a-z_]+) = (.*)$`).FindAllStringSubmatch(rendered.String(), -1) {
		key, value := m[1], m[2]
		if strings.Contains(least, key+" = ") || value == "[" { // or a list of tables
			continue
		}
		found++
		comment := strings.Join(strings.Fields(inReference(reference, key)), " ")
		_, said, _ := strings.Cut(comment, "Default: ")
		if value != `""` && !strings.Contains(said, value) {
			t.Errorf("etc/slicelb.toml: the default of %s is %s, and this is said of it: %s", key, value, comment)
		}
		if text := onPage(page, key); !strings.Contains(text, "`"+value+"`") && !strings.Contains(text, strings.Trim(value, `"`)) {
			t.Errorf("docs/configuration.md: the default of %s is %s, and this is said of it:\n%s", key, value, text)
		}
	}
	if found < 12 {
		t.Errorf("only %d defaults found in\n%s", found, &rendered)
	}
}
