package main

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/api"
)

// press sends keys to a model, named as Bubble Tea names them.
func press(t *testing.T, m *topModel, keys ...string) tea.Cmd {
	t.Helper()
	special := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "up": tea.KeyUp, "down": tea.KeyDown, "end": tea.KeyEnd,
		"home": tea.KeyHome, "pgdown": tea.KeyPgDown, "pgup": tea.KeyPgUp, "backspace": tea.KeyBackspace}
	var cmd tea.Cmd
	for _, key := range keys {
		k := tea.KeyPressMsg{}
		if code, ok := special[key]; ok {
			k.Code = code
		} else if key == "ctrl+c" {
			k.Code, k.Mod = 'c', tea.ModCtrl
		} else {
			r, _ := utf8.DecodeRuneInString(key)
			k.Code, k.Text = r, key
		}
		if k.String() != key && key != " " {
			t.Fatalf("%q is called %q", key, k.String())
		}
		_, cmd = m.Update(k)
	}
	return cmd
}

// liveModel has seen two answers, in a terminal of 100 by 12.
func liveModel(t *testing.T) *topModel {
	t.Helper()
	n := uint64(0)
	m := newTopModel(func() (*api.Top, error) { n++; return topAt(n), nil }, time.Second, topScreen{kind: topVIPs}, "CONN/S", painter{})
	m.Update(tea.WindowSizeMsg{Width: 100, Height: 12})
	for range 2 {
		m.Update(m.ask())
	}
	return m
}

// first are the first words of the table's lines.
func first(m *topModel) []string {
	var out []string
	for i, line := range strings.Split(m.content(), "\n") {
		if fields := strings.Fields(strings.TrimPrefix(line, "> ")); i > 1 && i < m.height-1 && len(fields) > 0 {
			out = append(out, fields[0])
		}
	}
	return out
}

func wantLines(t *testing.T, what string, m *topModel, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, first(m)); diff != "" {
		t.Errorf("%s (-want +got):\n%s\n%s", what, diff, m.content())
	}
}

func TestTopKeys(t *testing.T) {
	m := liveModel(t)
	wantLines(t, "at first", m, "db", "www", "idle")
	press(t, m, "s") // by LIVE
	wantLines(t, "by live connections", m, "www", "db", "idle")
	press(t, m, "r")
	wantLines(t, "the other way round", m, "idle", "db", "www")
	press(t, m, "r", "down", "down", "down", "down", "up")
	if !strings.Contains(m.content(), "> db") {
		t.Errorf("the cursor is not at db:\n%s", m.content())
	}
	press(t, m, "enter")
	wantLines(t, "db's backends", m, "192.0.2.11:5432", "192.0.2.12:5432", "192.0.2.20:5432")
	press(t, m, "g")
	wantLines(t, "db's groups", m, "web", `"jobs/a\x1b[2J.scope"`)
	press(t, m, "home", "enter")
	wantLines(t, "what web calls", m, "db", "www")
	press(t, m, "enter") // what is counted of a backend is not web's alone
	if head, _, _ := strings.Cut(m.content(), "\n"); !strings.Contains(head, "for group web, with everybody's calls") {
		t.Errorf("backends of a group's VIP: %s", head)
	}
	press(t, m, "esc", "esc", "esc", "/", "w", "w", "x", "backspace", "enter")
	wantLines(t, "with ww", m, "www")
	press(t, m, "esc")
	wantLines(t, "all again", m, "www", "db", "idle")
	press(t, m, "b", "enter")
	wantLines(t, "all backends", m, "192.0.2.80:80", "192.0.2.11:5432", "192.0.2.12:5432", "192.0.2.20:5432")
	press(t, m, "?")
	if !strings.Contains(m.content(), "sort by the next column") {
		t.Errorf("no help:\n%s", m.content())
	}
	if cmd := press(t, m, "q"); cmd == nil || cmd() != tea.Quit() {
		t.Error("q does not end it")
	}
	if cmd := press(t, m, "ctrl+c"); cmd == nil || cmd() != tea.Quit() {
		t.Error("ctrl+c does not end it")
	}
}

// No terminal is too small: there are never more lines, nor longer ones, than it
// has, and what matters stays.
func TestTopResizes(t *testing.T) {
	m := liveModel(t)
	for _, keys := range [][]string{nil, {"g"}, {"b"}, {"?"}, {"?", "/"}} {
		press(t, m, keys...)
		for width := 1; width < 130; width += 3 {
			for height := 1; height < 20; height += 2 {
				m.Update(tea.WindowSizeMsg{Width: width, Height: height})
				lines := strings.Split(m.content(), "\n")
				if len(lines) > height {
					t.Fatalf("%d x %d: %d lines", width, height, len(lines))
				}
				for _, line := range lines {
					if utf8.RuneCountInString(line) > width {
						t.Fatalf("%d x %d: %q", width, height, line)
					}
				}
			}
		}
	}
	press(t, m, "esc", "v")
	m.Update(tea.WindowSizeMsg{Width: 30, Height: 10})
	if got := m.content(); !strings.Contains(got, "db") || !strings.Contains(got, "105.0") || strings.Contains(got, "P99") {
		t.Errorf("in a narrow terminal:\n%s", got)
	}
}

// A long list scrolls with the cursor.
func TestTopScrolls(t *testing.T) {
	m := liveModel(t)
	top := topAt(9)
	for i := range 100 {
		top.VIPs = append(top.VIPs, api.TopVIP{Name: "vip" + count(uint64(1000+i))})
	}
	m.Update(topSample{top: top})
	press(t, m, "end")
	if got := m.content(); !strings.Contains(got, "> vip1099") || strings.Contains(got, "db") {
		t.Errorf("at the end:\n%s", got)
	}
	press(t, m, "home")
	if got := m.content(); !strings.Contains(got, "> db") {
		t.Errorf("at the begin:\n%s", got)
	}
}

// An error is shown, and what was known stays; the next answer takes it away.
// While it pauses nothing is asked.
func TestTopErrors(t *testing.T) {
	m := liveModel(t)
	_, cmd := m.Update(topSample{err: errors.New("daemon not running\x1b[2J")})
	if got := m.content(); !strings.Contains(got, "daemon not running?[2J") || !strings.Contains(got, "105.0") {
		t.Errorf("with an error:\n%s", got)
	}
	if cmd == nil {
		t.Fatal("it does not ask again")
	}
	m.Update(topSample{top: topAt(3)})
	if got := m.content(); strings.Contains(got, "not running") {
		t.Errorf("after it:\n%s", got)
	}
	press(t, m, "p")
	if _, cmd := m.Update(topTick{}); cmd == nil || !strings.Contains(m.content(), "paused") {
		t.Errorf("paused:\n%s", m.content())
	}
	// The daemon was restarted with new maps: counts begin anew.
	m.Update(topSample{top: &api.Top{At: time.Unix(1772600004, 0), VIPs: []api.TopVIP{{Name: "db", Counters: api.Counters{Connects: 3}}}}})
	if got := m.content(); !strings.Contains(got, " 3.0 ") {
		t.Errorf("counts that begin anew:\n%s", got)
	}
}

// Escape sequences only where colour is wanted; other people's text has none.
func TestTopColour(t *testing.T) {
	m := liveModel(t)
	press(t, m, "g")
	if got := m.content(); strings.Contains(got, "\x1b") {
		t.Errorf("without colour: %q", got)
	}
	m.paint.on = true
	if got := m.content(); !strings.Contains(got, "\x1b[7m") || strings.Contains(got, "\x1b[2J") {
		t.Errorf("with colour: %q", got)
	}
}

// What networks were denied is a line among a group's VIPs, and no VIP.
func TestTopTitle(t *testing.T) {
	after := topAt(1)
	after.Groups = append(after.Groups, api.TopGroup{Group: "web", Counters: api.Counters{Denied: 3}})
	s := topScreen{kind: topVIPs, group: "web"}
	rows := topRows(nil, after, s)
	if got := s.title(rows); len(rows) != 3 || got != "2 VIPs of group web" {
		t.Errorf("%q of %d lines", got, len(rows))
	}
}

func TestPercentiles(t *testing.T) {
	took := func(counts ...uint32) []api.TookCount {
		out := make([]api.TookCount, len(counts))
		for i, c := range counts {
			out[i] = api.TookCount{Below: time.Duration(i + 1), Count: c}
		}
		out[len(out)-1].Below = 0
		return out
	}
	for _, tt := range []struct {
		name          string
		before, after []api.TookCount
		p50, p99      time.Duration
	}{
		{"none", took(1, 1), took(1, 1), unknown, unknown},
		{"not timed", nil, nil, unknown, unknown},
		{"one", nil, took(0, 1, 0), 2, 2},
		{"half and half", nil, took(50, 50, 0), 1, 2},
		{"a hundredth is slow", took(1, 2, 3), took(100, 2, 4), 1, 1},
		{"more than that", nil, took(98, 0, 2), 1, 0},
		{"counts wrap", took(1<<32-5, 0), took(5, 0), 1, 1},
	} {
		p50, p99 := percentiles(tt.before, tt.after)
		if p50 != tt.p50 || p99 != tt.p99 {
			t.Errorf("%s: %d, %d, want %d, %d", tt.name, p50, p99, tt.p50, tt.p99)
		}
	}
}
