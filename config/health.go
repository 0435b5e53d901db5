package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// HealthType is how a backend is checked.
type HealthType string

const (
	HealthTCP   HealthType = "tcp"   // a connection is accepted
	HealthHTTP  HealthType = "http"  // a GET is answered with an expected status
	HealthHTTPS HealthType = "https" // the same over TLS
)

// Initial is how a backend that was never checked stands.
type Initial string

const (
	InitialDown Initial = "down" // out until its first check, which decides
	InitialUp   Initial = "up"   // in until checks fail
)

// Health is [vip.NAME.health]: active checks of the VIP's backends, those of
// its views too.
type Health struct {
	Type     HealthType
	Path     string        // of HTTP: begins with "/"
	Host     string        // of HTTP: Host and TLS name; "" = the backend's address
	Expect   []StatusRange // of HTTP: sorted, apart
	Headers  []Header      // of HTTP, by name
	CAFile   string        // of HTTPS: PEM, absolute; "" = the system's
	Insecure bool          // of HTTPS: the certificate is not verified

	Interval time.Duration
	Timeout  time.Duration // at most Interval
	Fall     uint32        // failures in a row until a backend is down
	Rise     uint32        // successes in a row until it is up again
	Initial  Initial

	Passive bool // connects that the kernel sees fail start a check at once

	PanicThreshold uint32        // percent of the backends that may be down at most
	SlowStart      time.Duration // from nothing to the whole weight; 0 = at once
	Origin         Position
}

// Defaults of health checks.
const (
	DefaultHealthPath     = "/"
	DefaultHealthExpect   = "200-399"
	DefaultHealthInterval = 2 * time.Second
	DefaultHealthTimeout  = time.Second
	DefaultFall           = 3
	DefaultRise           = 2
	DefaultPanicThreshold = 100
)

// Bounds of health checks.
const (
	minInterval  = 100 * time.Millisecond
	maxInterval  = time.Hour
	minTimeout   = 10 * time.Millisecond
	maxCount     = 100 // of fall and rise
	maxSlowStart = time.Hour
	maxHeaders   = 32
	maxText      = 1024 // bytes of a path, a host, a header
)

var (
	healthKeys = []string{
		"type", "interval", "timeout", "fall", "rise", "initial", "passive", "panic_threshold", "slow_start",
		"path", "host", "expect", "headers", "ca_file", "insecure",
	}
	httpKeys = []string{"path", "host", "expect", "headers"}
	tlsKeys  = []string{"ca_file", "insecure"}
)

func (b *builder) readHealth(t *table) *Health {
	h := &Health{Origin: t.own().position()}
	written, said := t.m["type"]
	h.Type = HealthType(t.choice("type", string(HealthTCP), string(HealthTCP), string(HealthHTTP), string(HealthHTTPS)))
	free := said && written != string(h.Type) // refused: it may have been meant to be any
	if h.Type == HealthTCP && !free {
		b.refuseKeys(t, httpKeys, `type = "http"`)
	}
	if h.Type != HealthHTTPS && !free {
		b.refuseKeys(t, tlsKeys, `type = "https"`)
	}

	refused := len(b.problems)
	h.Interval = t.duration("interval", DefaultHealthInterval, minInterval, maxInterval)
	known := refused == len(b.problems)
	_, said = t.m["timeout"]
	_, at := t.places("timeout")
	h.Timeout = t.duration("timeout", min(DefaultHealthTimeout, h.Interval), minTimeout, maxInterval)
	if h.Timeout > h.Interval {
		if said && known {
			b.errorf(at, "", "timeout%s must not be longer than the interval, %s", t.in(), durationText(h.Interval))
		}
		h.Timeout = h.Interval
	}
	h.Fall = t.number("fall", DefaultFall, 1, maxCount)
	h.Rise = t.number("rise", DefaultRise, 1, maxCount)
	h.Initial = Initial(t.choice("initial", string(InitialDown), string(InitialDown), string(InitialUp)))
	h.Passive = t.boolean("passive", false)
	h.PanicThreshold = t.number("panic_threshold", DefaultPanicThreshold, 0, 100)
	h.SlowStart = t.duration("slow_start", 0, 0, maxSlowStart)

	if h.Type != HealthTCP || free {
		b.readHTTP(t, h)
	}
	if h.Type == HealthHTTPS || free {
		b.readTLS(t, h)
	}
	t.rest(healthKeys, nil)
	return h
}

// refuseKeys complains about keys that mean nothing without what hint says.
func (b *builder) refuseKeys(t *table, keys []string, hint string) {
	for _, k := range keys {
		if _, ok := t.m[k]; ok {
			at, _ := t.places(k)
			b.errorf(at, hint, "%s%s does nothing with this type", k, t.in())
			delete(t.m, k)
		}
	}
}

// checkHealth warns of checks that say little.
func (b *builder) checkHealth(v *vipDraft) {
	if v.Health == nil {
		return
	}
	title := "vip." + printable(v.Name)
	if len(v.Frontends) > 0 && !slices.ContainsFunc(v.Frontends, func(f Frontend) bool { return f.Proto == TCP }) {
		b.warnf(v.healthAt, "", "%s has only UDP frontends: its backends are checked over TCP, at the same port", title)
		if v.Health.Passive {
			b.warnf(v.healthAt, "", "passive = true in %s.health does nothing: the kernel sees TCP connects fail, and %s has only UDP frontends", title, title)
		}
	}
	if v.Health.PanicThreshold == 0 {
		b.warnf(v.healthAt, "", "panic_threshold = 0 in %s.health: no backend is ever taken out", title)
	}
}

// health renders.
func (r *renderer) health(vip string, h *Health) {
	r.header("[vip."+vip+".health]", h.Origin)
	r.line("type = " + tomlString(string(h.Type)))
	r.line("interval = " + tomlString(durationText(h.Interval)))
	r.line("timeout = " + tomlString(durationText(h.Timeout)))
	r.line(fmt.Sprintf("fall = %d", h.Fall))
	r.line(fmt.Sprintf("rise = %d", h.Rise))
	r.line("initial = " + tomlString(string(h.Initial)))
	r.line(fmt.Sprintf("passive = %t", h.Passive))
	r.line(fmt.Sprintf("panic_threshold = %d", h.PanicThreshold))
	r.line("slow_start = " + tomlString(durationText(h.SlowStart)))
	if h.Type == HealthTCP {
		return
	}
	r.line("path = " + tomlString(h.Path))
	if h.Host != "" {
		r.line("host = " + tomlString(h.Host))
	}
	r.line("expect = " + tomlString(h.ExpectText()))
	if len(h.Headers) > 0 {
		fields := make([]string, len(h.Headers))
		for i, f := range h.Headers {
			fields[i] = tomlString(f.Name) + " = " + tomlString(f.Value) // quoted: a name may have a dot
		}
		r.line("headers = { " + strings.Join(fields, ", ") + " }")
	}
	if h.Type != HealthHTTPS {
		return
	}
	if h.CAFile != "" {
		r.line("ca_file = " + tomlString(h.CAFile))
	}
	r.line(fmt.Sprintf("insecure = %t", h.Insecure))
}
