package config

import (
	"bytes"
	"errors"
	"regexp"

	"github.com/BurntSushi/toml"
	"github.com/pelletier/go-toml/v2/unstable"
)

var (
	headerLine = regexp.MustCompile(`(?m)^[ \t]*\[\[?[ \t]*[A-Za-z_][\w-]*([ \t]*\.[ \t]*[\w-]+)*[ \t]*\]\]?[ \t]*(#|\r?$)`)
	onePair    = regexp.MustCompile(`^[^\[\]{}#=]+=[^\[{]*$`) // the beginning of a line
)

// maxResumed bounds how often a text is read on after a fault.
const maxResumed = 100

// resume returns where one may read on after a fault at off, or 0: at the next line,
// where a key and its value stand on one; at the next header, where the fault may have
// left an array, an inline table or a header open.
func (ix *index) resume(off int) int {
	if ix.resumed++; ix.resumed > maxResumed {
		return 0
	}
	data := ix.src.data
	start := bytes.LastIndexByte(data[:off], '\n') + 1
	length := bytes.IndexByte(data[off:], '\n')
	if length < 0 {
		return 0
	}
	next := off + length + 1
	if onePair.Match(data[start:off]) {
		return next
	}
	if found := headerLine.FindIndex(data[next:]); found != nil {
		return next + found[0]
	}
	return 0
}

// blanked is a text without what stands in front of next; places stay.
func blanked(data []byte, next int) []byte {
	data = bytes.Clone(data)
	for i := range data[:next] {
		if data[i] != '\n' {
			data[i] = ' '
		}
	}
	return data
}

// scalar complains about a number or a date that there is not, such as the 45th of
// a month: the parser looks at their shape only.
func (ix *index) scalar(v *unstable.Node, pl place) {
	if len(v.Data) <= 18 && v.Data[0] != '0' && len(bytes.Trim(v.Data, "0123456789")) == 0 {
		return // the usual
	}
	_, err := toml.Decode("x = "+string(v.Data), &raw{})
	if err == nil {
		return
	}
	message := err.Error()
	var perr toml.ParseError
	if errors.As(err, &perr) {
		message = perr.Message
	}
	at := ix.keySpan(pl)
	if pl.valEnd > 0 {
		at = span{src: ix.src, off: int(pl.valOff), end: int(pl.valEnd)}
	}
	if len(ix.faults) < maxProblems {
		ix.faults = append(ix.faults, at.problem(SeverityError, "not TOML: "+printable(message), ""))
	}
}
