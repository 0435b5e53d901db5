package api

import (
	"context"
	"net/url"
	"strconv"
	"strings"
)

// Question is what explain asks: what a call from a cgroup to an address gets.
type Question struct {
	Address string `json:"address"` // address:port, or address:port/udp; "" = every VIP
	Cgroup  string `json:"cgroup"`  // path below the cgroup root

	// Process says that Cgroup is what /proc/PID/cgroup had: the directory may
	// be gone, and " (deleted)" may stand behind its path.
	Process bool `json:"process"`

	// Elsewhere says that the caller is in another network namespace than the daemon.
	Elsewhere bool `json:"elsewhere,omitempty"`

	// IDs are those of Cgroup and of what it lies in, innermost first, where an answer
	// has said that they are hidden from the daemon and not from who asks.
	IDs []uint64 `json:"ids,omitempty"`
}

// question reads what Client.Explain asks.
func question(v url.Values) (Question, error) {
	q := Question{
		Address: v.Get("address"), Cgroup: v.Get("cgroup"),
		Process: v.Get("process") == "true", Elsewhere: v.Get("elsewhere") == "true",
	}
	if strings.ContainsRune(q.Cgroup, 0) {
		return q, Errorf(BadRequest, "cgroup %q: want a path below the cgroup root", q.Cgroup)
	}
	for _, text := range v["id"] {
		id, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return q, Errorf(BadRequest, "id %q: want a cgroup's id", text)
		}
		q.IDs = append(q.IDs, id)
	}
	return q, nil
}

// Explanation is the answer, from what the kernel's maps hold.
type Explanation struct {
	Address   string     `json:"address"`
	Cgroup    string     `json:"cgroup"`
	Gone      bool       `json:"gone"` // the caller's cgroup does not exist any more
	Ancestors []Ancestor `json:"ancestors"`
	Group     string     `json:"group"`      // "host" where no group covers the caller
	Decided   string     `json:"decided_by"` // the cgroup whose entry names the group
	Pattern   string     `json:"pattern,omitempty"`
	VIPs      []Verdict  `json:"vips,omitempty"` // where no address was asked for

	VIP      string    `json:"vip,omitempty"`  // "" = the address is no frontend
	Down     bool      `json:"down,omitempty"` // no backend takes connections
	Action   string    `json:"action"`         // balance, pass, reject, deny
	Reason   string    `json:"reason"`
	Rule     int       `json:"rule,omitempty"`   // of the policy, that decided, from 1
	Origin   string    `json:"origin,omitempty"` // where it stands
	View     string    `json:"view,omitempty"`   // the group whose view decides
	Chosen   string    `json:"chosen,omitempty"` // where Maglev leads the caller; "" = chance decides, or it cannot be said
	Backends []Backend `json:"backends"`
	Steps    []Step    `json:"steps"`
}

// Ancestor is a cgroup on the way from a caller's up to the root.
type Ancestor struct {
	Path    string `json:"path"`
	ID      uint64 `json:"id"`               // 0 = it is gone, or hidden
	Hidden  bool   `json:"hidden,omitempty"` // it lies in a cgroup that may not be looked into
	Kind    string `json:"kind,omitempty"`   // anchor, split, member, way, new (not looked at yet); "" = not mapped
	Group   string `json:"group,omitempty"`
	Unit    string `json:"unit,omitempty"`
	Decides bool   `json:"decides"`
}

// Verdict is what a caller gets of one frontend.
type Verdict struct {
	VIP     string `json:"vip"`
	Address string `json:"address"`
	Action  string `json:"action"`
	Reason  string `json:"reason"`
}

// Step is one look-up on the way to an answer.
type Step struct {
	Look  string `json:"look"`
	Found string `json:"found"`
}

// Explain asks what a call would get; NotFound where the cgroup does not exist.
func (c *Client) Explain(ctx context.Context, q Question) (*Explanation, error) {
	v := url.Values{"address": {q.Address}, "cgroup": {q.Cgroup}}
	if q.Process {
		v.Set("process", "true")
	}
	if q.Elsewhere {
		v.Set("elsewhere", "true")
	}
	for _, id := range q.IDs {
		v.Add("id", strconv.FormatUint(id, 10))
	}
	return get[Explanation](ctx, c, "/explain?"+v.Encode())
}
