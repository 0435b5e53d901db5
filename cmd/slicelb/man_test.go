package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

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
	for _, m := range regexp.MustCompile(`(?m)^\.(?:It )?Cm ([a-z]+(?: (?:list|show|maps|config|drain|maint|ready))?)\b`).FindAllStringSubmatch(list, -1) {
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
