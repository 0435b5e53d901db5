package main

import (
	"encoding/json"
	"io"
	"time"
)

// topLook is what top -o json prints of one look, on one line.
type topLook struct {
	At   time.Time `json:"at"`
	Rows []topLine `json:"rows"`
}

// topLine is a row. What is not known, or is none, is left out.
type topLine struct {
	Name     string         `json:"name"` // of the VIP or group; a backend's address
	VIP      string         `json:"vip,omitempty"`
	Group    string         `json:"group,omitempty"`
	Up       string         `json:"up,omitempty"` // of how many
	State    string         `json:"state,omitempty"`
	Connects *float64       `json:"connects_per_second,omitempty"`
	Rejected *float64       `json:"rejected_per_second,omitempty"`
	Denied   *float64       `json:"denied_per_second,omitempty"`
	Passed   *float64       `json:"passed_per_second,omitempty"`
	Share    *float64       `json:"share,omitempty"`
	Live     *float64       `json:"live,omitempty"`
	P50      *time.Duration `json:"p50_below,omitempty"` // nanoseconds; 0: more than is told apart
	P99      *time.Duration `json:"p99_below,omitempty"`
}

// printLook writes one look.
func printLook(w io.Writer, at time.Time, rows []topRow) error {
	look := topLook{At: at, Rows: make([]topLine, len(rows))}
	for i, r := range rows {
		line := topLine{
			Name: r.name, VIP: r.vip, Group: r.group, Up: r.up, State: r.state,
			Connects: known(r.connects), Live: known(r.live), P50: known(r.p50), P99: known(r.p99),
		}
		if r.state != "" { // a backend is rejected and denied nothing
			line.Share, line.P50, line.P99 = known(r.share/100), nil, nil
		} else {
			line.Rejected, line.Denied, line.Passed = known(r.rejected), known(r.denied), known(r.passed)
		}
		look.Rows[i] = line
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(look)
}

func known[T float64 | time.Duration](v T) *T {
	if v == unknown {
		return nil
	}
	return &v
}
