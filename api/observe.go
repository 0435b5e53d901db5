package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Decision is what one call came to. Command, Unit and Cgroup are other
// people's text: quote them.
type Decision struct {
	Time     time.Time     `json:"time"`
	Verdict  string        `json:"verdict"` // translated, passed, rejected, denied, audited
	Reason   string        `json:"reason"`
	Rule     uint32        `json:"rule,omitempty"` // of the policy
	Group    string        `json:"group"`          // "host" where no group covers the caller
	VIP      string        `json:"vip,omitempty"`
	View     string        `json:"view,omitempty"` // the group whose view decided
	Call     string        `json:"call"`           // connect, send; socket: what a strict group may not make
	Protocol string        `json:"protocol"`       // tcp, udp; of a socket raw, mptcp, and so on
	Address  string        `json:"address"`        // that was asked for; "" for a socket
	Backend  string        `json:"backend,omitempty"`
	Took     time.Duration `json:"took_ns,omitempty"` // to connect, where it is known
	PID      uint32        `json:"pid"`               // in the first pid namespace, as kernel and host count
	TID      uint32        `json:"tid"`
	Command  string        `json:"command"`
	Unit     string        `json:"unit,omitempty"`
	Cgroup   string        `json:"cgroup,omitempty"` // where only its end is known it begins with "…/"
	CgroupID uint64        `json:"cgroup_id"`
	MemberID uint64        `json:"member_id,omitempty"` // the nearest cgroup that has a group
	Netns    uint64        `json:"netns_cookie"`
	Socket   uint64        `json:"socket_cookie"`
}

// Target is what was asked for, with its protocol.
func (d *Decision) Target() string {
	if d.Address == "" {
		return d.Protocol
	}
	return d.Address + "/" + d.Protocol
}

// Missing is what a stream leaves out at the place where it stands.
type Missing struct {
	Where string `json:"where"`           // kernel: not read in time; budget: refusals beyond their group's; watcher: this client is slow
	Group string `json:"group,omitempty"` // of budget
	Count uint64 `json:"count"`
}

// Observed is one line of a stream: one of both.
type Observed struct {
	Decision *Decision `json:"decision,omitempty"`
	Missing  *Missing  `json:"missing,omitempty"`
}

// Observation is what a client wants to hear of.
type Observation struct {
	VIP      string
	Group    string   // a group, a split child, or "host"
	Verdicts []string // none = all
	Since    time.Time
	Last     int    // so many of what is stored at most; 0 = none of it, negative = all
	Follow   bool   // go on with what comes
	UID      uint32 // who asks; the server says it
}

// Stream delivers what a daemon observes. One goroutine uses it.
type Stream interface {
	// Next waits for more; io.EOF is the end. What it returns is good until the next.
	Next(context.Context) ([]Observed, error)
	Close()
}

// streamTimeout is how long a client may not read before its stream ends.
const streamTimeout = 5 * time.Minute

func (s *Server) observe(w http.ResponseWriter, r *http.Request) {
	o, err := observation(r.URL.Query())
	var by peer
	if err == nil {
		by, err = peerIn(r)
	}
	var stream Stream
	if err == nil {
		o.UID = by.uid
		stream, err = s.Daemon.Observe(r.Context(), o)
	}
	if err != nil {
		e := asError(err)
		s.write(w, e.Code.status(), e)
		return
	}
	defer stream.Close()
	rc := http.NewResponseController(w)
	// A stream lasts; each of its writes does not.
	if err := errors.Join(rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Now().Add(streamTimeout))); err != nil {
		s.Log.Debug("api deadline", "err", err)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	out := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for {
		err := rc.Flush()
		var lines []Observed
		if err == nil {
			lines, err = stream.Next(r.Context())
		}
		if err == nil {
			err = rc.SetWriteDeadline(time.Now().Add(streamTimeout))
		}
		for i := range lines {
			if err == nil {
				err = enc.Encode(&lines[i])
			}
		}
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.Log.Debug("api stream", "err", err)
			}
			return
		}
	}
}

func observation(q url.Values) (Observation, error) {
	o := Observation{VIP: q.Get("vip"), Group: q.Get("group"), Verdicts: q["verdict"], Follow: q.Get("follow") == "true"}
	if text := q.Get("since"); text != "" {
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return o, Errorf(BadRequest, "since %q: want a time as RFC 3339 has it", text)
		}
		o.Since = t
	}
	if text := q.Get("follow"); text != "" && text != "true" && text != "false" {
		return o, Errorf(BadRequest, "follow %q: want true or false", text)
	}
	for name := range q {
		if !slices.Contains([]string{"vip", "group", "verdict", "follow", "since", "last"}, name) {
			return o, Errorf(BadRequest, "%q is not known: want vip, group, verdict, follow, since or last", name)
		}
	}
	o.Last = -1
	if q.Has("last") {
		text := q.Get("last")
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return o, Errorf(BadRequest, "last %q: want a number from 0 on", text)
		}
		o.Last = n
	}
	return o, nil
}

// Observe calls each with every line, until the daemon ends the stream, ctx is
// done, or each returns an error. What it is called with is good until it returns.
func (c *Client) Observe(ctx context.Context, o Observation, each func(*Observed) error) error {
	q := url.Values{"verdict": o.Verdicts}
	if o.Last >= 0 {
		q.Set("last", strconv.Itoa(o.Last))
	}
	for name, value := range map[string]string{"vip": o.VIP, "group": o.Group} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if !o.Since.IsZero() {
		q.Set("since", o.Since.Format(time.RFC3339Nano))
	}
	if o.Follow {
		q.Set("follow", "true")
	}
	resp, err := c.send(ctx, http.MethodGet, Prefix+"/observe?"+q.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return failure(resp)
	}
	dec := json.NewDecoder(bufio.NewReaderSize(resp.Body, 64<<10))
	for {
		var line Observed
		err := dec.Decode(&line)
		switch {
		case errors.Is(err, io.EOF) && !o.Follow:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return ErrStreamEnded
		case err != nil:
			return err
		}
		if err := each(&line); err != nil {
			return err
		}
	}
}

// ErrStreamEnded means that a stream has ended before its time: the daemon stops, or
// whoever reads was too slow for it.
var ErrStreamEnded = errors.New("the daemon has ended the stream")
