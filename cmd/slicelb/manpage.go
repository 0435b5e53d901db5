package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newMan writes the manual's pages of the commands from what the commands say
// of themselves, so that page and --help are one text. It is for packaging.
func newMan(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:    "man FOLDER",
		Short:  "Write a manual page for each command into a folder",
		Long:   "Write a manual page, in section 8, for each command into a folder. The pages bear\nthe date that SOURCE_DATE_EPOCH says, or today's.",
		Args:   exactly("FOLDER"),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			date := time.Now()
			if s := g.getenv("SOURCE_DATE_EPOCH"); s != "" {
				seconds, err := strconv.ParseInt(s, 10, 64)
				if err != nil {
					return usageErrorf("SOURCE_DATE_EPOCH: %v", err)
				}
				date = time.Unix(seconds, 0)
			}
			for name, text := range manPages(cmd.Root(), date.UTC()) {
				if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
					return fmt.Errorf("manual page: %w", err)
				}
			}
			return nil
		},
	}
}

// manPages are the pages of all commands but the root's, which is written by
// hand, by file name.
func manPages(root *cobra.Command, date time.Time) map[string]string {
	pages := make(map[string]string)
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if sub.Hidden {
				continue
			}
			pages[manName(sub)+".8"] = manPage(sub, date)
			walk(sub)
		}
	}
	walk(root)
	return pages
}

// manName is "slicelb-vip-show" for "slicelb vip show".
func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manPage is one page, in mdoc(7).
func manPage(cmd *cobra.Command, date time.Time) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(".Dd %s", date.Format("January 2, 2006"))
	line(".Dt %s 8", strings.ToUpper(manName(cmd)))
	line(".Os")
	line(".Sh NAME")
	line(".Nm %s", manName(cmd))
	line(".Nd %s", roff(lowerFirst(cmd.Short)))
	synopsis(line, cmd)
	line(".Sh DESCRIPTION")
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	paragraphs(&b, long)
	if subs := visible(cmd); len(subs) > 0 {
		line(".Sh COMMANDS")
		line(".Bl -tag -width Ds")
		for _, sub := range subs {
			line(".It Xr %s 8", manName(sub))
			line("%s.", roff(sub.Short))
		}
		line(".El")
	}
	options(&b, line, cmd)
	if cmd.Example != "" {
		line(".Sh EXAMPLES")
		literal(&b, strings.Split(dedent(cmd.Example), "\n"))
	}
	seeAlso(line, cmd)
	return b.String()
}

func synopsis(line func(format string, args ...any), cmd *cobra.Command) {
	line(".Sh SYNOPSIS")
	_, operands, _ := strings.Cut(cmd.Use, " ")
	if cmd.HasSubCommands() {
		operands = "COMMAND"
	}
	line(".Ic %s", cmd.CommandPath())
	if cmd.HasAvailableLocalFlags() {
		line(".Op Ar options")
	}
	if operands != "" {
		line(".Li %s", roff(strings.ReplaceAll(operands, "[flags]", "")))
	}
}

// options are the command's own; of those that every command has it says where they
// stand.
func options(b *strings.Builder, line func(format string, args ...any), cmd *cobra.Command) {
	if cmd.HasAvailableLocalFlags() {
		line(".Sh OPTIONS")
		line(".Bl -tag -width Ds")
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && f.Name != "help" {
				option(b, f)
			}
		})
		line(".It Fl h , Fl -help")
		line("Print this as a short text.")
		line(".El")
	}
	line(".Pp")
	line("The options")
	line(".Fl -socket ,")
	line(".Fl -config")
	line("and")
	line(".Fl -cgroup-root ,")
	line("of all commands, and the exit statuses are explained in")
	line(".Xr slicelb 8 .")
}

func seeAlso(line func(format string, args ...any), cmd *cobra.Command) {
	line(".Sh SEE ALSO")
	if p := cmd.Parent(); p.HasParent() {
		line(".Xr %s 8 ,", manName(p))
		for _, sub := range visible(p) {
			if sub != cmd {
				line(".Xr %s 8 ,", manName(sub))
			}
		}
	}
	line(".Xr slicelb 8 ,")
	line(".Xr slicelb.toml 5")
}

func visible(cmd *cobra.Command) (subs []*cobra.Command) {
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			subs = append(subs, sub)
		}
	}
	return subs
}

func option(b *strings.Builder, f *pflag.Flag) {
	value, usage := pflag.UnquoteUsage(f)
	b.WriteString(".It ")
	if f.Shorthand != "" {
		fmt.Fprintf(b, "Fl %s , ", f.Shorthand)
	}
	fmt.Fprintf(b, "Fl -%s", f.Name)
	if value != "" {
		fmt.Fprintf(b, " Ar %s", roff(value))
	}
	fmt.Fprintf(b, "\n%s.\n", roff(strings.TrimSuffix(upperFirst(usage), ".")))
	switch f.DefValue {
	case "", "false", "0", "0s", "[]":
	default:
		fmt.Fprintf(b, "The default is\n.Li %s .\n", roff(f.DefValue))
	}
}
