package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Files that went away do not say that VIPs are to go. fault F18
func TestReplaces(t *testing.T) {
	const mainFile, drop = "etc/slicelb/slicelb.toml", "etc/slicelb/conf.d/10.toml"
	other := strings.NewReplacer("vip.a", "vip.b", "10.96.0.1", "10.96.0.2").Replace(oneVIP)
	for _, tt := range []struct {
		name   string
		before []string
		change func(root string) error
		want   string // "": it may
	}{
		{"the main file is gone", []string{mainFile, oneVIP}, remove(mainFile), "is missing, and was read"},
		{"another VIP is in a drop-in", []string{mainFile, oneVIP, drop, other}, remove(mainFile), "is missing, and was read"},
		{"everything is gone", []string{mainFile, oneVIP, drop, other}, remove("etc"), "is missing, and was read"},
		{"the only drop-in is gone", []string{drop, oneVIP}, remove(drop), "is missing, and no other file configures anything: 1 VIP would go"},
		{"policy alone", []string{drop, "[policy]\ndefault = \"deny\"\n"}, remove(drop), "all that is configured would go"},
		{"it is empty", []string{mainFile, oneVIP}, write(mainFile, ""), "is empty, and no other file"},
		{"it is blank, beside a drop-in that says something else", []string{mainFile, oneVIP, drop, "[daemon]\n"}, write(mainFile, "\n \n"), "is empty, and no other file"},

		{"it says that there is none", []string{mainFile, oneVIP}, write(mainFile, "# none\n"), ""},
		{"it is masked", []string{mainFile, oneVIP}, func(root string) error {
			return errors.Join(remove(mainFile)(root), os.Symlink("/dev/null", filepath.Join(root, mainFile)))
		}, ""},
		{"all is in a drop-in now", []string{mainFile, oneVIP}, func(root string) error {
			return errors.Join(write(mainFile, "")(root), os.Mkdir(filepath.Join(root, "etc/slicelb/conf.d"), 0o755), write(drop, oneVIP)(root))
		}, ""},
		{"it was never there", []string{drop, oneVIP}, write(drop, other), ""},
		{"there was nothing to lose", []string{mainFile, "# none\n"}, remove(mainFile), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := tree(t, tt.before...)
			before, _, err := Installed(root).Load()
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.change(root); err != nil {
				t.Fatal(err)
			}
			next, _, err := Installed(root).Load()
			if err != nil {
				t.Fatal(err)
			}
			check := func(err error) {
				t.Helper()
				var lost *LostError
				if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &lost) || !strings.Contains(lost.Text, tt.want) || lost.Hint == "") {
					t.Errorf("%v, want %q", err, tt.want)
				}
			}
			check(next.Replaces(before))
			if tt.want != "" && next.Idle() { // whatever ran
				tt.want = "all that is configured would go"
				check(next.Replaces(nil))
			}
		})
	}
}

func remove(name string) func(string) error {
	return func(root string) error { return os.RemoveAll(filepath.Join(root, name)) }
}

func write(name, text string) func(string) error {
	return func(root string) error { return os.WriteFile(filepath.Join(root, name), []byte(text), 0o644) }
}
