package pages

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const page = "# Title\n\n```console\n# one\n# cat >f <<'END'\n[x]\nEND\n# two\n```\n\n## Part\n\n" +
	"<!-- not run: nobody can -->\n\n```console\n# three\n```\n\n```toml\n# /etc/x/y.toml\na = 1\n```\n```text\nout\n```\n"

func TestParse(t *testing.T) {
	got, err := parse(page)
	if err != nil {
		t.Fatal(err)
	}
	want := []Block{
		{Line: 3, Lang: "console", Text: "# one\n# cat >f <<'END'\n[x]\nEND\n# two\n"},
		{Line: 15, Section: "Part", Lang: "console", Text: "# three\n", NotRun: "nobody can"},
		{Line: 19, Section: "Part", Lang: "toml", Text: "# /etc/x/y.toml\na = 1\n"},
		{Line: 23, Section: "Part", Lang: "text", Text: "out\n"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"one\n", "cat >f <<'END'\n[x]\nEND\n", "two\n"}, got[0].Commands()); diff != "" {
		t.Error(diff)
	}
	path, text, ok := got[2].File()
	if path != "/etc/x/y.toml" || text != want[2].Text || !ok {
		t.Errorf("File: %q %q %v", path, text, ok)
	}
	if _, _, ok := got[0].File(); ok {
		t.Error("a console is taken for a file")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, bad := range []string{"```console\n# one\n", "<!-- not run: why -->\n\nText.\n"} {
		if got, err := parse(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
