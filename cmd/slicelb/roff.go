package main

import "strings"

// paragraphs writes paragraphs; lines that are indented stay as they are.
func paragraphs(b *strings.Builder, text string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		lines := strings.Split(paragraph, "\n")
		if strings.HasPrefix(lines[0], "  ") {
			literal(b, strings.Split(dedent(paragraph), "\n"))
			continue
		}
		if i > 0 {
			b.WriteString(".Pp\n")
		}
		for _, l := range lines {
			b.WriteString(roff(l) + "\n")
		}
	}
}

func literal(b *strings.Builder, lines []string) {
	b.WriteString(".Bd -literal -offset indent\n")
	for _, l := range lines {
		// What is copied from a terminal must be what a shell takes.
		b.WriteString(strings.ReplaceAll(roff(l), "-", `\-`) + "\n")
	}
	b.WriteString(".Ed\n")
}

func dedent(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, "  ")
	}
	return strings.Join(lines, "\n")
}

// roff takes from a text what means something to the formatter.
func roff(text string) string {
	text = strings.ReplaceAll(text, `\`, `\e`)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return strings.NewReplacer("'", `\(aq`, "`", `\(ga`, "~", `\(ti`, "^", `\(ha`).Replace(text)
}

func lowerFirst(s string) string {
	if len(s) > 1 && s[1] >= 'a' && s[1] <= 'z' {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
