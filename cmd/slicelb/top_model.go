package main

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
)

// topModel is the live view. Bubble Tea owns it.
type topModel struct {
	fetch func() (*api.Top, error)
	delay time.Duration
	paint painter

	before, after *api.Top
	err           error // of the newest answer
	paused        bool

	stack         []topScreen // the last is looked at
	by            string
	reverse       bool
	filter        string
	editing, help bool

	cursor, offset int
	width, height  int
}

type topSample struct {
	top *api.Top
	err error
}

type topTick struct{}

func newTopModel(fetch func() (*api.Top, error), delay time.Duration, s topScreen, by string, paint painter) *topModel {
	return &topModel{fetch: fetch, delay: delay, stack: []topScreen{s}, by: by, paint: paint, width: 80, height: 24}
}

func (m *topModel) Init() tea.Cmd { return m.ask }

func (m *topModel) ask() tea.Msg {
	top, err := m.fetch()
	return topSample{top, err}
}

func (m *topModel) screen() *topScreen { return &m.stack[len(m.stack)-1] }

func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case topSample:
		if m.err = msg.err; msg.err == nil {
			m.before, m.after = m.after, msg.top
		}
		return m, tea.Tick(m.delay, func(time.Time) tea.Msg { return topTick{} })
	case topTick:
		if m.paused {
			return m, tea.Tick(m.delay, func(time.Time) tea.Msg { return topTick{} })
		}
		return m, m.ask
	case tea.KeyPressMsg:
		if m.editing {
			m.edit(msg)
			return m, nil
		}
		return m, m.key(msg)
	}
	return m, nil
}

// edit takes a key of the filter's line.
func (m *topModel) edit(k tea.KeyPressMsg) {
	switch k.String() {
	case "enter":
		m.editing = false
	case "esc", "ctrl+c":
		m.editing, m.filter = false, ""
	case "backspace":
		_, n := utf8.DecodeLastRuneInString(m.filter)
		m.filter = m.filter[:len(m.filter)-n]
	default:
		m.filter += k.Text
	}
	m.cursor = 0
}

func (m *topModel) key(k tea.KeyPressMsg) tea.Cmd {
	page := max(1, m.height-4)
	kinds := map[string]topKind{"v": topVIPs, "g": topGroups, "b": topBackends}
	switch key := k.String(); key {
	case "q", "ctrl+c":
		return tea.Quit
	case "up", "k":
		m.cursor--
	case "down", "j":
		m.cursor++
	case "pgup":
		m.cursor -= page
	case "pgdown":
		m.cursor += page
	case "home":
		m.cursor = 0
	case "end":
		m.cursor = 1 << 30
	case "v", "g", "b":
		m.screen().kind = kinds[key]
		m.cursor = 0
	case "enter", "right":
		m.drill()
	case "esc", "left", "backspace":
		switch {
		case m.filter != "":
			m.filter = ""
		case len(m.stack) > 1:
			m.stack = m.stack[:len(m.stack)-1]
		}
		m.cursor = 0
	case "s":
		columns := topColumns(m.screen().kind)
		m.by = columns[(columnAt(columns, m.by)+1)%len(columns)].name
	case "r":
		m.reverse = !m.reverse
	case "/":
		m.editing = true
	case "space", "p":
		m.paused = !m.paused
	case "?", "h":
		m.help = !m.help
	}
	m.cursor = max(0, min(m.cursor, len(m.rows())-1))
	return nil
}

// drill looks at what the line under the cursor is about.
func (m *topModel) drill() {
	rows := m.rows()
	if m.cursor < 0 || m.cursor >= len(rows) {
		return
	}
	r, s := rows[m.cursor], *m.screen()
	switch s.kind {
	case topVIPs:
		s.kind, s.vip = topBackends, r.name
	case topGroups:
		s.kind, s.group, s.vip = topVIPs, r.name, ""
	default:
		return
	}
	m.stack = append(m.stack, s)
	m.cursor = 0
}

func (m *topModel) rows() []topRow {
	if m.after == nil {
		return nil
	}
	rows := keepTop(topRows(m.before, m.after, *m.screen()), m.filter)
	sortTop(rows, topColumns(m.screen().kind), m.by, m.reverse)
	return rows
}

const topHelp = `v g b     VIPs, groups, backends
enter     what belongs to the line; esc goes back
s  r      sort by the next column; the other way round
/         only lines that have a text; esc shows all
p         pause
q         end`

func (m *topModel) View() tea.View {
	v := tea.NewView(m.content())
	v.AltScreen = true
	return v
}

// content is as many lines as there is room for, none longer than that.
func (m *topModel) content() string {
	rows := m.rows()
	m.cursor = max(0, min(m.cursor, len(rows)-1))
	var lines []string
	add := func(style, text string) { lines = append(lines, m.paint.paint(style, cut(text, max(m.width, 1)))) }
	add("1", m.head(rows))
	room := max(1, m.height-3)
	switch {
	case m.help:
		for line := range strings.Lines(topHelp) {
			add("", strings.TrimSuffix(line, "\n"))
		}
	case m.after == nil && m.err == nil:
		add("", "asking the daemon ...")
	case m.after != nil:
		table := topLines(rows, topColumns(m.screen().kind), max(1, m.width-2))
		add("4", "  "+table[0])
		m.offset = max(0, min(m.offset, m.cursor), m.cursor-room+1)
		for i := m.offset; i < len(rows) && i < m.offset+room; i++ {
			if i == m.cursor {
				add("7", "> "+table[i+1])
			} else {
				add("", "  "+table[i+1])
			}
		}
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	switch {
	case m.err != nil:
		add("31", prose.OneLine(m.err.Error()))
	case m.editing:
		add("", "/"+prose.OneLine(m.filter)+"_")
	default:
		add("2", "q end  ? help  v g b  enter  s sort  / filter  p pause")
	}
	if len(lines) > m.height {
		lines = lines[:max(m.height, 1)]
	}
	return strings.Join(lines, "\n")
}

func (m *topModel) head(rows []topRow) string {
	text := "slicelb top"
	if m.after != nil {
		text += "  " + m.after.At.Local().Format("15:04:05")
	}
	columns := topColumns(m.screen().kind)
	text += fmt.Sprintf("  %s  by %s", m.screen().title(rows), columns[columnAt(columns, m.by)].name)
	if m.filter != "" {
		text += "  /" + prose.OneLine(m.filter)
	}
	if m.paused {
		text += "  paused"
	}
	return text
}

// liveTop runs the live view until the user ends it.
func liveTop(ctx context.Context, g *globals, m *topModel) error {
	_, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithoutSignalHandler(), tea.WithInput(g.stdin), tea.WithOutput(g.stdout)).Run()
	if ctx.Err() != nil {
		return nil // an interrupt is how one ends it
	}
	return err
}
