package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestManPage: slicelb(8) names every command, every flag and every exit
// status, and no command that is not there.
func TestManPage(t *testing.T) {
	page, err := os.ReadFile("../../packaging/man/slicelb.8")
	if err != nil {
		t.Fatal(err)
	}
	root := newRoot(&env{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer), lookup: func(string) (string, bool) { return "", false }})

	commands := make(map[string]bool)
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && !bytes.Contains(page, []byte("Fl -"+f.Name)) {
				t.Errorf("%s --%s is not on the page", cmd.CommandPath(), f.Name)
			}
		})
		if !cmd.HasSubCommands() {
			commands[strings.TrimPrefix(cmd.CommandPath(), "slicelb ")] = true
			return
		}
		for _, sub := range cmd.Commands() {
			if !sub.Hidden {
				walk(sub)
			}
		}
	}
	walk(root)

	_, list, _ := strings.Cut(string(page), "\n.Sh COMMANDS\n")
	list, _, _ = strings.Cut(list, "\n.Sh ")
	for _, m := range regexp.MustCompile(`(?m)^\.(?:It )?Cm ([a-z]+(?: (?:list|show|maps|config|drain|maint|ready|try|suggest))?)\b`).FindAllStringSubmatch(list, -1) {
		if !commands[m[1]] {
			t.Errorf("the page names %q, which is no command", m[1])
		}
		delete(commands, m[1])
	}
	for c := range commands {
		t.Errorf("%q is not on the page", c)
	}

	for _, code := range []int{exitOK, exitFailed, exitUsage, exitNotRunning, exitNoObject, exitNotPermitted, exitBadConfig} {
		if !bytes.Contains(page, fmt.Appendf(nil, "\n.It %d\n", code)) {
			t.Errorf("exit status %d is not on the page", code)
		}
	}
}

// TestCommandPages: every command and every family has a page, which says what
// it does, gives an example, and explains each of its options; the formatter
// has nothing to say about it.
func TestCommandPages(t *testing.T) {
	e := &env{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer), lookup: func(string) (string, bool) { return "", false }}
	root := newRoot(e)
	pages := manPages(root, time.Unix(1700000000, 0).UTC())
	count := len(pages)
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if sub.Hidden {
				continue
			}
			name := manName(sub) + ".8"
			page, ok := pages[name]
			if !ok {
				t.Errorf("%s has no page", sub.CommandPath())
				continue
			}
			if sub.Long == "" || sub.Short == "" {
				t.Errorf("%s does not say what it does", sub.CommandPath())
			}
			if !sub.HasSubCommands() && sub.Example == "" {
				t.Errorf("%s gives no example", sub.CommandPath())
			}
			sub.LocalFlags().VisitAll(func(f *pflag.Flag) {
				if f.Usage == "" || !strings.Contains(page, "Fl -"+f.Name) {
					t.Errorf("%s: --%s is not explained", name, f.Name)
				}
			})
			delete(pages, name)
			walk(sub)
			if _, err := exec.LookPath("groff"); err != nil {
				continue
			}
			groff := exec.Command("groff", "-mdoc", "-ww", "-Tascii")
			groff.Stdin = strings.NewReader(page)
			var warnings bytes.Buffer
			groff.Stderr = &warnings
			if err := groff.Run(); err != nil || warnings.Len() > 0 {
				t.Errorf("%s: groff: %v\n%s\n%s", name, err, &warnings, page)
			}
		}
	}
	walk(root)
	for name := range pages {
		t.Errorf("%s is a page of no command", name)
	}

	dir := t.TempDir()
	if code := run(t.Context(), e, []string{"man", dir}); code != exitOK {
		t.Fatalf("slicelb man: exit %d: %s", code, e.stderr)
	}
	if written, _ := filepath.Glob(filepath.Join(dir, "slicelb-*.8")); len(written) != count {
		t.Errorf("%d pages were written, want %d", len(written), count)
	}
}

// TestExamples: what a command gives as an example is a call of it.
func TestExamples(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if sub.Hidden {
				continue
			}
			own := sub.HasSubCommands()
			for _, args := range calls(sub.Example) {
				named, err := parses(bareRoot(), args)
				if err != nil {
					t.Errorf("%s: example %q: %v", sub.CommandPath(), args, err)
				}
				own = own || named == sub.CommandPath()
			}
			if !own {
				t.Errorf("%s: no example calls it:\n%s", sub.CommandPath(), sub.Example)
			}
			walk(sub)
		}
	}
	walk(bareRoot())
}

// TestPageCalls: every call of slicelb that a page of the documentation or a
// manual page shows is one: the command is there, with these options and as
// many operands.
func TestPageCalls(t *testing.T) {
	quoted := regexp.MustCompile("`(slicelb [a-z][^`]*)`")
	block := regexp.MustCompile("(?ms)^```(?:console)?\n(.*?)^```$")
	found := 0
	for _, glob := range []string{"../../*.md", "../../docs/*.md"} {
		names, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var shown []string
			for _, m := range quoted.FindAllStringSubmatch(string(text), -1) {
				words := strings.Fields(m[1])
				if cmd, rest, err := bareRoot().Find(words[1:]); err == nil && len(rest) == 0 && !cmd.HasSubCommands() {
					continue // named, not called
				}
				shown = append(shown, strings.Join(words, " "))
			}
			for _, m := range block.FindAllStringSubmatch(string(text), -1) {
				shown = append(shown, strings.ReplaceAll(m[1], "# slicelb", "slicelb"))
			}
			for _, s := range shown {
				for _, args := range calls(s) {
					found++
					if _, err := parses(bareRoot(), args); err != nil {
						t.Errorf("%s: %q: %v", name, args, err)
					}
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("%d calls found", found)
	}
}

// bareRoot is the command tree, of a process without an environment.
func bareRoot() *cobra.Command {
	return newRoot(&env{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer), lookup: func(string) (string, bool) { return "", false }})
}

// calls are the arguments of each call of slicelb in a piece of shell.
func calls(text string) (all [][]string) {
	separator := regexp.MustCompile(`\n|&&|\|\||\||;|<\(|>`)
	for _, part := range separator.Split(text, -1) {
		words := strings.Fields(strings.NewReplacer("'", "", `"`, "", ")", "", "--pid PID", "--pid 1").Replace(part))
		for len(words) > 0 && words[0] == "sudo" {
			words = words[1:]
		}
		if len(words) > 1 && words[0] == "slicelb" {
			if i := slices.IndexFunc(words, func(w string) bool { return w == "#" || w == "…" }); i > 0 {
				words = words[:i]
			}
			all = append(all, words[1:])
		}
	}
	return all
}

// parses finds the command that args call, and says what is wrong with the
// options and the number of operands.
func parses(root *cobra.Command, args []string) (string, error) {
	cmd, rest, err := root.Find(args)
	if err != nil {
		return "", err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return cmd.CommandPath(), err
	}
	if cmd.HasSubCommands() && len(cmd.Flags().Args()) > 0 {
		return cmd.CommandPath(), fmt.Errorf("no command %q", cmd.Flags().Args())
	}
	if cmd.HasSubCommands() {
		return cmd.CommandPath(), nil // named as a family
	}
	if cmd.Args == nil {
		return cmd.CommandPath(), nil
	}
	return cmd.CommandPath(), cmd.Args(cmd, cmd.Flags().Args())
}
