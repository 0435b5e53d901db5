package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// raw is a decoded table: string, int64, float64, bool, time.Time, []any,
// []raw, or raw.
type raw = map[string]any

// decode returns what src says, and where; or every problem that makes it no
// TOML.
func decode(src *fileText) (raw, *index, []Problem) {
	if fault, ok := encoding(src); !ok {
		return nil, nil, []Problem{fault}
	}
	ix, faults := newIndex(src) // first: it bounds the nesting
	if len(faults) > 0 {
		return nil, nil, faults
	}
	var m raw
	if _, err := toml.Decode(string(src.data), &m); err != nil {
		at := span{src: src}
		message := err.Error()
		var perr toml.ParseError
		if errors.As(err, &perr) {
			message = perr.Message
			at.off = min(max(0, perr.Position.Start), len(src.data))
			at.end = min(at.off+max(0, perr.Position.Len), len(src.data))
		}
		return nil, nil, []Problem{at.problem(SeverityError, "not TOML: "+printable(message), "")}
	}
	return m, ix, nil
}

// encoding says what an editor has put in front of a text that is no part of it.
func encoding(src *fileText) (Problem, bool) {
	for _, m := range []struct{ mark, message string }{
		{"\xef\xbb\xbf", "begins with a byte order mark (U+FEFF)"},
		{"\xff\xfe", "is UTF-16, not UTF-8"},
		{"\xfe\xff", "is UTF-16, not UTF-8"},
	} {
		if bytes.HasPrefix(src.data, []byte(m.mark)) {
			return span{src, 0, len(m.mark)}.problem(SeverityError, m.message, "save it as UTF-8 without a byte order mark"), false
		}
	}
	return Problem{}, true
}

// table reads one table. What is read is taken out of it; rest complains about
// what remains.
type table struct {
	*builder
	ix    *index
	at    trail
	title string // "[vip.db]" in messages; "" at the top
	m     raw
}

func (t *table) places(key string) (name, value span) { return t.ix.at(t.at, t.at.key(key)) }

// said is where the value of a key stands that was not read yet; nowhere where
// there is none.
func (t *table) said(key string) span {
	if _, ok := t.m[key]; !ok {
		return span{}
	}
	_, value := t.places(key)
	return value
}

// own is where the table itself stands.
func (t *table) own() span {
	key, _ := t.ix.at(t.at, t.at)
	return key
}

// keys returns what the table holds, in the order of the file.
func (t *table) keys() []string {
	keys := make([]string, 0, len(t.m))
	off := make(map[string]int, len(t.m))
	for k := range t.m {
		keys = append(keys, k)
		name, _ := t.places(k)
		off[k] = name.off
	}
	slices.SortFunc(keys, func(a, b string) int {
		if off[a] != off[b] {
			return off[a] - off[b]
		}
		return strings.Compare(a, b)
	})
	return keys
}

// in is " in [vip.db]".
func (t *table) in() string {
	if t.title == "" {
		return ""
	}
	return " in " + t.title
}

func (t *table) take(key string) (any, bool) {
	v, ok := t.m[key]
	delete(t.m, key)
	return v, ok
}

func (t *table) wrongType(at span, key, want string, v any) {
	t.errorf(at, "", "%s%s must be %s, not %s", key, t.in(), want, kind(v))
}

func kind(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case time.Time:
		return "a date"
	case raw:
		return "a table"
	case []any, []raw:
		return "an array"
	}
	return fmt.Sprintf("%T", v)
}

// text reads a string; false: there is none, or not a string.
func (t *table) text(key string) (string, span, bool) {
	v, ok := t.take(key)
	if !ok {
		return "", span{}, false
	}
	_, at := t.places(key)
	s, ok := v.(string)
	if !ok {
		t.wrongType(at, key, "a string", v)
	}
	return s, at, ok
}

// choice reads a string that must be one of a few.
func (t *table) choice(key, fallback string, allowed ...string) string {
	s, at, ok := t.text(key)
	if !ok {
		return fallback
	}
	if !slices.Contains(allowed, s) {
		t.errorf(at, cmp.Or(suggest(s, allowed), "one of "+strings.Join(allowed, ", ")), "%s %s%s is not known", key, quote(s), t.in())
		return fallback
	}
	return s
}

// number reads an integer within bounds.
func (t *table) number(key string, fallback, low, high uint32) uint32 {
	v, ok := t.take(key)
	if !ok {
		return fallback
	}
	_, at := t.places(key)
	n, ok := v.(int64)
	if !ok {
		t.wrongType(at, key, "an integer", v)
		return fallback
	}
	if n < int64(low) || n > int64(high) {
		t.errorf(at, "", "%s%s must be from %d to %d, not %d", key, t.in(), low, high, n)
		return fallback
	}
	return uint32(n)
}

// duration reads a duration within bounds.
func (t *table) duration(key string, fallback, low, high time.Duration) time.Duration {
	s, at, ok := t.text(key)
	if !ok {
		return fallback
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.errorf(at, key+` = "`+durationText(max(fallback, low))+`"`, "%s %s%s is no duration", key, quote(s), t.in())
		return fallback
	}
	if d < low || d > high {
		t.errorf(at, "", "%s%s must be from %s to %s, not %s", key, t.in(), durationText(low), durationText(high), durationText(d))
		return fallback
	}
	return d
}

// durationText is the shortest form that ParseDuration reads again.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

func (t *table) boolean(key string, fallback bool) bool {
	v, ok := t.take(key)
	if !ok {
		return fallback
	}
	_, at := t.places(key)
	b, ok := v.(bool)
	if !ok {
		t.wrongType(at, key, "a boolean", v)
		return fallback
	}
	return b
}

// word is a string of an array.
type word struct {
	text string
	at   span
}

// words reads an array of strings; nil: there is none. Not complete: something
// in it was wrong.
func (t *table) words(key string) (words []word, at span, complete bool) {
	v, ok := t.take(key)
	if !ok {
		return nil, span{}, true
	}
	at, value := t.places(key)
	list, ok := v.([]any)
	if tables, is := v.([]raw); is {
		ok = true
		for _, m := range tables {
			list = append(list, m)
		}
	}
	if !ok {
		hint := ""
		if s, ok := v.(string); ok {
			hint = "write it as [" + quote(s) + "]"
		}
		t.errorf(value, hint, "%s%s must be an array of strings, not %s", key, t.in(), kind(v))
		return []word{}, at, false
	}
	words, complete = make([]word, 0, len(list)), true
	for i, v := range list {
		at, _ := t.ix.at(t.at.key(key), t.at.key(key).elem(i))
		s, ok := v.(string)
		if !ok {
			t.errorf(at, "", "%s%s must hold strings, not %s", key, t.in(), kind(v))
			complete = false
			continue
		}
		words = append(words, word{s, at})
	}
	return words, at, complete
}

// table reads a table; nil: there is none.
func (t *table) table(key, title string) *table {
	v, ok := t.take(key)
	if !ok {
		return nil
	}
	m, ok := v.(raw)
	if !ok {
		_, at := t.places(key)
		t.errorf(at, "", "%s must be a table, not %s", strings.Trim(title, "[]"), kind(v))
		return nil
	}
	return &table{builder: t.builder, ix: t.ix, at: t.at.key(key), title: title, m: m}
}

// tables reads an array of tables; false: there is none, or something else.
func (t *table) tables(key, title string) ([]*table, bool) {
	v, ok := t.take(key)
	if !ok {
		return nil, false
	}
	name, at := t.places(key)
	var list []any
	switch v := v.(type) {
	case []raw:
		for _, m := range v {
			list = append(list, m)
		}
	case []any:
		list = v
	default:
		hint := ""
		if _, ok := v.(raw); ok {
			hint = "write [" + title + "]"
			at = name
		}
		t.errorf(at, hint, "%s must be an array of tables, not %s", strings.Trim(title, "[]"), kind(v))
		return nil, false
	}
	out := make([]*table, 0, len(list))
	for i, v := range list {
		p := t.at.key(key).elem(i)
		m, ok := v.(raw)
		if !ok {
			at, _ := t.ix.at(t.at.key(key), p)
			t.errorf(at, "", "%s must hold tables, not %s", strings.Trim(title, "[]"), kind(v))
			continue
		}
		out = append(out, &table{builder: t.builder, ix: t.ix, at: p, title: title, m: m})
	}
	return out, true
}

// rest complains about what was not read: keys of later versions, which are
// known but refused, and unknown ones.
func (t *table) rest(known, later []string) {
	for _, k := range t.keys() {
		at, _ := t.places(k)
		if slices.Contains(later, k) {
			t.errorf(at, "", "%s%s is not supported by this version", quote(k), t.in())
			continue
		}
		t.errorf(at, suggest(k, append(slices.Clone(known), later...)), "unknown key %s%s", quote(k), t.in())
	}
}
