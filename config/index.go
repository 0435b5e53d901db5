package config

import (
	"errors"
	"hash/maphash"

	"github.com/pelletier/go-toml/v2/unstable"
)

// The decoder says nothing of where a value stood. So the text is parsed a
// second time into an index from trail to position. A trail is a chain of hashes:
// a wrong position once in 2^64 keys is cheaper than a tree of strings.
type trail uint64

var pathSeed = maphash.MakeSeed()

func (p trail) key(name string) trail {
	return trail(maphash.Comparable(pathSeed, struct {
		parent trail
		key    string
	}{p, name}))
}

func (p trail) elem(i int) trail {
	return trail(maphash.Comparable(pathSeed, struct {
		parent trail
		elem   int
	}{p, i}))
}

// place is where a trail leads: its key (the whole header for a table that has
// one) and its value. An end of 0 means that there is none.
type place struct {
	keyOff, keyEnd int32
	valOff, valEnd int32
	header         bool // has a header of its own
	leaf           bool // was given a value
}

type index struct {
	src    *fileText
	places map[trail]place
	counts map[trail]int // elements of arrays of tables so far
	faults []Problem
	root   trail // of the header in force

	resumed int // how often, after faults
}

// Bounds that keep both parsers' recursion short.
const (
	maxKeyParts = 16
	maxNesting  = 8
)

// newIndex returns the positions in src, or every problem that makes the file
// no TOML at all.
func newIndex(src *fileText) (*index, []Problem) {
	ix := &index{src: src, places: make(map[trail]place), counts: make(map[trail]int)}
	data := src.data
	for next := ix.parse(data); next > 0; next = ix.parse(data) {
		data = blanked(data, next)
	}
	return ix, ix.faults
}

// parse reads data, which is the source's text or the end of it, up to a fault of its
// syntax. Where there is one, it returns the place after which one may read on; else 0.
func (ix *index) parse(data []byte) int {
	var p unstable.Parser
	p.Reset(data)
	for p.NextExpression() {
		n := p.Expression()
		switch n.Kind {
		case unstable.Table, unstable.ArrayTable:
			ix.header(&p, n)
		case unstable.KeyValue:
			ix.pair(&p, ix.root, n, 0)
		}
		if len(ix.faults) >= maxProblems {
			return 0
		}
	}
	err := p.Error()
	if err == nil {
		return 0
	}
	at := span{src: ix.src, off: max(0, len(data)-1), end: len(data)}
	var perr *unstable.ParserError
	if errors.As(err, &perr) && len(perr.Highlight) > 0 {
		r := p.Range(perr.Highlight)
		at = span{src: ix.src, off: int(r.Offset), end: int(r.Offset + r.Length)}
	}
	ix.faults = append(ix.faults, at.problem(SeverityError, "not TOML: "+printable(err.Error()), ""))
	return ix.resume(at.off)
}

func (ix *index) header(p *unstable.Parser, n *unstable.Node) {
	type part struct {
		name string
		raw  unstable.Range
	}
	var parts []part
	for it := n.Key(); it.Next(); {
		k := it.Node()
		parts = append(parts, part{string(k.Data), k.Raw})
	}
	if len(parts) == 0 {
		return
	}
	whole := place{
		keyOff: int32(parts[0].raw.Offset),
		keyEnd: int32(parts[len(parts)-1].raw.Offset + parts[len(parts)-1].raw.Length),
	}
	if len(parts) > maxKeyParts {
		ix.fault(whole, "a key of more than 16 parts", "")
		return
	}

	var at trail
	for i, k := range parts {
		at = at.key(k.name)
		last := i == len(parts)-1
		if last && n.Kind == unstable.Table {
			whole.header = true
			if old, ok := ix.places[at]; ok && old.header {
				ix.fault(whole, "["+printable(string(ix.src.data[whole.keyOff:whole.keyEnd]))+"] stands twice in this file", ix.first(old))
			}
			ix.places[at] = whole
			break
		}
		if _, ok := ix.places[at]; !ok {
			pl := whole
			if !last {
				pl.keyOff, pl.keyEnd = int32(k.raw.Offset), int32(k.raw.Offset+k.raw.Length)
			}
			ix.places[at] = pl
		}
		switch {
		case last: // another element of an array of tables
			i := ix.counts[at]
			ix.counts[at] = i + 1
			at = at.elem(i)
			whole.header = true
			ix.places[at] = whole
		case ix.counts[at] > 0: // below the newest element
			at = at.elem(ix.counts[at] - 1)
		}
	}
	ix.root = at
}

func (ix *index) pair(p *unstable.Parser, at trail, n *unstable.Node, depth int) {
	parts := 0
	var pl place
	for it := n.Key(); it.Next(); {
		k := it.Node()
		parts++
		at = at.key(string(k.Data))
		pl = place{keyOff: int32(k.Raw.Offset), keyEnd: int32(k.Raw.Offset + k.Raw.Length)}
		if parts > maxKeyParts {
			ix.fault(pl, "a key of more than 16 parts", "")
			return
		}
		if _, ok := ix.places[at]; !ok && !it.IsLast() {
			ix.places[at] = pl
		}
	}
	if old, ok := ix.places[at]; ok && old.leaf {
		ix.fault(pl, "\""+printable(string(ix.src.data[pl.keyOff:pl.keyEnd]))+"\" is set twice", ix.first(old))
		return
	}
	ix.value(p, at, n.Value(), pl, depth)
}

func (ix *index) value(p *unstable.Parser, at trail, v *unstable.Node, pl place, depth int) {
	if depth > maxNesting {
		ix.fault(pl, "nested too deep", "")
		return
	}
	pl.leaf = true
	if v.Kind != unstable.Array && v.Raw.Length > 0 {
		pl.valOff, pl.valEnd = int32(v.Raw.Offset), int32(v.Raw.Offset+v.Raw.Length)
	}
	ix.places[at] = pl
	switch v.Kind {
	case unstable.Integer, unstable.Float, unstable.LocalDate, unstable.LocalTime, unstable.LocalDateTime, unstable.DateTime:
		ix.scalar(v, pl)
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			if n := it.Node(); n.Kind == unstable.KeyValue {
				ix.pair(p, at, n, depth+1)
			}
		}
	case unstable.Array:
		i := 0
		for it := v.Children(); it.Next(); i++ {
			e := pl
			n := it.Node()
			if n.Raw.Length > 0 {
				e.keyOff, e.keyEnd = int32(n.Raw.Offset), int32(n.Raw.Offset+n.Raw.Length)
			}
			ix.value(p, at.elem(i), n, e, depth+1)
		}
	}
}

func (ix *index) fault(pl place, message, hint string) {
	if len(ix.faults) < maxProblems {
		ix.faults = append(ix.faults, ix.keySpan(pl).problem(SeverityError, message, hint))
	}
}

func (ix *index) first(old place) string {
	return "first at " + ix.keySpan(old).position().String()
}

func (ix *index) keySpan(pl place) span {
	return span{src: ix.src, off: int(pl.keyOff), end: int(pl.keyEnd)}
}

// at returns the places of a key and of its value; a trail that the index does
// not know is placed at its parent.
func (ix *index) at(parent, p trail) (key, val span) {
	pl, ok := ix.places[p]
	if !ok {
		pl = ix.places[parent]
	}
	key = ix.keySpan(pl)
	val = key
	if pl.valEnd > 0 {
		val = span{src: ix.src, off: int(pl.valOff), end: int(pl.valEnd)}
	}
	return key, val
}
