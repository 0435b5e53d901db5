package anchor

import (
	"errors"
	"fmt"
	"strings"
)

// pattern is one configured path. Its index is its precedence.
type pattern struct {
	text       string
	group      int
	components []component
	literal    bool // in every component
}

// parse fills patterns and returns each group's split component, by index.
func (t *Tree) parse() ([]*component, error) {
	var errs []error
	splits := make([]*component, len(t.groups))
	for g, group := range t.groups {
		if group.Name == "" {
			errs = append(errs, errors.New("group: no name"))
		}
		for _, text := range group.Patterns {
			p, err := parsePattern(text)
			if err != nil {
				errs = append(errs, fmt.Errorf("group %s: pattern %q: %w", group.Name, text, err))
				continue
			}
			p.group = g
			t.patterns = append(t.patterns, p)
		}
		if group.Split == "" {
			continue
		}
		c, err := parseComponent(group.Split)
		if err == nil && strings.Contains(group.Split, "/") {
			err = errors.New(`a basename has no "/"`)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("group %s: split %q: %w", group.Name, group.Split, err))
			continue
		}
		splits[g] = &c
	}
	return splits, errors.Join(errs...)
}

func parsePattern(text string) (pattern, error) {
	p := pattern{text: text, literal: true}
	rest, ok := strings.CutPrefix(text, "/")
	if !ok {
		return p, errors.New("not an absolute path")
	}
	if rest == "" {
		return p, nil
	}
	for name := range strings.SplitSeq(rest, "/") {
		c, err := parseComponent(name)
		if err != nil {
			return p, err
		}
		p.components = append(p.components, c)
		p.literal = p.literal && c.shape == literal
	}
	if len(p.components) > MaxLevel {
		return p, fmt.Errorf("%d levels below the cgroup root, %d at most", len(p.components), MaxLevel)
	}
	return p, nil
}
