package config

import "github.com/slicelb/slicelb/unitwatch/anchor"

// Tree is what the groups' slices make together. Of a Config that Load or Parse
// returned it is without an error.
func (c *Config) Tree() (*anchor.Tree, error) {
	groups := make([]anchor.Group, len(c.Groups))
	for i := range c.Groups {
		groups[i] = c.Groups[i].anchors()
	}
	return anchor.Compile(groups)
}

func (g *Group) anchors() anchor.Group {
	out := anchor.Group{Name: g.Name, Split: g.Split}
	for _, a := range g.Anchors {
		out.Patterns = append(out.Patterns, a.Pattern)
	}
	return out
}
