package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
)

// completeFirst offers, for the only argument, what a running daemon knows, and
// nothing when none runs.
func (g *globals) completeFirst(from func(*api.Status) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		s, err := g.client().Status(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return from(s), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeOption is the same for an option's value.
func (g *globals) completeOption(from func(*api.Status) []string) cobra.CompletionFunc {
	complete := g.completeFirst(from)
	return func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return complete(cmd, nil, word)
	}
}

// completions says how the values of a command's options are completed. The
// options are there.
func completions(cmd *cobra.Command, how map[string]cobra.CompletionFunc) {
	for name, from := range how {
		if err := cmd.RegisterFlagCompletionFunc(name, from); err != nil {
			panic(err) // no such option
		}
	}
}

// oneOf completes a fixed choice.
func oneOf(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// severalOf completes a fixed choice of which several may be given, with commas between
// them: shells compare what is offered with all of the word.
func severalOf(words ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		before := word[:strings.LastIndexByte(word, ',')+1]
		var out []string
		for _, w := range words {
			if !slices.Contains(strings.Split(before, ","), w) {
				out = append(out, before+w)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeBackend offers VIPs, then the backends of one.
func (g *globals) completeBackend(ctx context.Context, args []string) []string {
	switch len(args) {
	case 0:
		s, err := g.client().Status(ctx)
		if err != nil {
			return nil
		}
		return vipNames(s)
	case 1:
		v, err := g.client().VIP(ctx, args[0])
		if err != nil {
			return nil
		}
		return names(v.All(), func(b api.Backend) string { return b.Address })
	}
	return nil
}

func vipNames(s *api.Status) []string {
	return names(s.VIPs, func(v api.VIP) string { return v.Name })
}

func groupNames(s *api.Status) []string {
	return names(s.Groups, func(v api.Group) string { return v.Name })
}

// backendUnits are the units that are backends.
func backendUnits(s *api.Status) []string {
	var out []string
	for i := range s.VIPs {
		for _, b := range s.VIPs[i].All() {
			if b.Unit != "" && !slices.Contains(out, b.Unit) {
				out = append(out, b.Unit)
			}
		}
	}
	return out
}

func names[T any](list []T, name func(T) string) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = name(v)
	}
	return out
}
