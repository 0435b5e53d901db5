package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

// journalLog writes log lines for the journal: it has the time already, and takes
// the priority from a prefix. Events go to it with their fields.
type journalLog struct {
	inner slog.Handler
	out   *journalWriter
}

type journalWriter struct {
	mu     sync.Mutex
	w      io.Writer
	prefix bool
	level  slog.Level
	fields map[string]string // of an event
}

func newJournal(w io.Writer, prefix bool, level slog.Leveler) slog.Handler {
	out := &journalWriter{w: w, prefix: prefix}
	return &journalLog{out: out, inner: slog.NewTextHandler(out, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.TimeKey || prefix && a.Key == slog.LevelKey) {
				return slog.Attr{}
			}
			return a
		},
	})}
}

func (j *journalLog) Enabled(ctx context.Context, l slog.Level) bool { return j.inner.Enabled(ctx, l) }

func (j *journalLog) Handle(ctx context.Context, r slog.Record) error {
	j.out.mu.Lock()
	defer j.out.mu.Unlock()
	j.out.level, j.out.fields = r.Level, nil
	if j.out.prefix {
		j.out.fields = fieldsOf(r)
	}
	return j.inner.Handle(ctx, r)
}

func (j *journalLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalLog{inner: j.inner.WithAttrs(attrs), out: j.out}
}

func (j *journalLog) WithGroup(name string) slog.Handler {
	return &journalLog{inner: j.inner.WithGroup(name), out: j.out}
}

// Write is called by the inner handler, once for each record, under mu.
func (w *journalWriter) Write(b []byte) (int, error) {
	if w.prefix {
		priority := 6
		switch {
		case w.level >= slog.LevelError:
			priority = 3
		case w.level >= slog.LevelWarn:
			priority = 4
		case w.level < slog.LevelInfo:
			priority = 7
		}
		if w.fields != nil && sendJournal(string(bytes.TrimSuffix(b, []byte("\n"))), priority, w.fields) == nil {
			return len(b), nil
		}
		var line bytes.Buffer
		fmt.Fprintf(&line, "<%d>", priority)
		line.Write(b)
		if _, err := w.w.Write(line.Bytes()); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	return w.w.Write(b)
}
