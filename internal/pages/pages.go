// Package pages reads the pieces of code on the pages of the documentation, so
// that tests can run them. It is for tests alone.
//
// What a piece is, its language says:
//
//	console   commands after a prompt, "# "; lines without one belong to the
//	          command above
//	toml      a configuration
//	text      what something prints, or a picture: nothing to run
//
// A piece of any language whose first line is a comment with an absolute path
// is that file. One that no test can run has a comment in front of it that says
// why: <!-- not run: REASON -->.
package pages

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Block is one piece of code.
type Block struct {
	Page    string // path
	Line    int    // of its fence
	Section string // the heading above it, of the second level; "" before the first
	Lang    string
	Text    string
	NotRun  string // why not; "" = it is to be run
}

func (b Block) String() string { return fmt.Sprintf("%s:%d", b.Page, b.Line) }

var (
	heading = regexp.MustCompile(`^## (.*)$`)
	notRun  = regexp.MustCompile(`^<!-- not run: (.+) -->$`)
	prompt  = regexp.MustCompile(`(?m)^# `)
	file    = regexp.MustCompile(`^# (/[^\s]+)\n`)
)

// Read returns the pieces of a page in order.
func Read(path string) ([]Block, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	blocks, err := parse(string(text))
	for i := range blocks {
		blocks[i].Page = path
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return blocks, nil
}

func parse(text string) (blocks []Block, err error) {
	var section, reason string
	var open *Block
	number := 0
	for line := range strings.Lines(text) {
		number++
		bare := strings.TrimRight(line, " \n")
		switch {
		case open != nil && bare == "```":
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.Text += line
		case strings.HasPrefix(bare, "```"):
			open = &Block{Line: number, Section: section, Lang: strings.TrimPrefix(bare, "```"), NotRun: reason}
			reason = ""
		case heading.MatchString(bare):
			section = heading.FindStringSubmatch(bare)[1]
		case notRun.MatchString(bare):
			reason = notRun.FindStringSubmatch(bare)[1]
		case bare != "" && reason != "":
			return blocks, fmt.Errorf("line %d: nothing follows that is not run: %s", number, reason)
		}
	}
	if open != nil {
		return blocks, fmt.Errorf("line %d: no end of it", open.Line)
	}
	return blocks, nil
}

// Commands are those of a console's piece, without prompts.
func (b Block) Commands() []string {
	if b.Lang != "console" {
		return nil
	}
	parts := prompt.Split(b.Text, -1)
	return parts[1:]
}

// File is the path and the contents of a piece that is a file.
func (b Block) File() (path, text string, ok bool) {
	m := file.FindStringSubmatch(b.Text)
	if m == nil || b.Lang == "console" {
		return "", "", false
	}
	return m[1], b.Text, true
}
