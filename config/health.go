package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
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

// StatusRange is HTTP statuses from Low to High.
type StatusRange struct{ Low, High int }

func (r StatusRange) String() string {
	if r.Low == r.High {
		return strconv.Itoa(r.Low)
	}
	return fmt.Sprintf("%d-%d", r.Low, r.High)
}

// Header is one field of a request.
type Header struct{ Name, Value string }

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
	h.Type = HealthType(t.choice("type", string(HealthTCP), string(HealthTCP), string(HealthHTTP), string(HealthHTTPS)))
	if h.Type == HealthTCP {
		b.refuseKeys(t, httpKeys, `type = "http"`)
	}
	if h.Type != HealthHTTPS {
		b.refuseKeys(t, tlsKeys, `type = "https"`)
	}

	h.Interval = t.duration("interval", DefaultHealthInterval, minInterval, maxInterval)
	_, said := t.m["timeout"]
	_, at := t.places("timeout")
	h.Timeout = t.duration("timeout", min(DefaultHealthTimeout, h.Interval), minTimeout, maxInterval)
	if h.Timeout > h.Interval {
		if said {
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

	if h.Type != HealthTCP {
		b.readHTTP(t, h)
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

func (b *builder) readHTTP(t *table, h *Health) {
	h.Path = DefaultHealthPath
	if s, at, ok := t.text("path"); ok {
		if !strings.HasPrefix(s, "/") || !isVisible(s) || strings.Contains(s, "#") || len(s) > maxText {
			b.errorf(at, `path = "/healthz"`, "path %s%s is not the path of a request", quote(s), t.in())
		} else {
			h.Path = s
		}
	}
	if s, at, ok := t.text("host"); ok {
		if !isHost(s) {
			b.errorf(at, "", "host %s%s is neither a name nor an address", quote(s), t.in())
		} else {
			h.Host = s
		}
	}
	expect, at, ok := t.text("expect")
	if !ok {
		expect = DefaultHealthExpect
	}
	ranges, err := parseExpect(expect)
	if err != nil {
		b.errorf(at, err.hint, "%s%s", err.message, t.in())
	}
	h.Expect = ranges
	h.Headers = b.readHeaders(t)
	if h.Type != HealthHTTPS {
		return
	}
	h.Insecure = t.boolean("insecure", false)
	if s, at, ok := t.text("ca_file"); ok {
		switch {
		case !strings.HasPrefix(s, "/") || strings.ContainsRune(s, 0):
			b.errorf(at, "", "ca_file %s%s is not an absolute path", quote(s), t.in())
		case h.Insecure:
			b.errorf(at, "", "ca_file%s does nothing with insecure = true", t.in())
		}
		h.CAFile = s
	}
}

// parseExpect reads "200", "200-299" and lists of both. What it returns is
// sorted and joined.
func parseExpect(text string) ([]StatusRange, *refusal) {
	const hint = `expect = "200,204,300-399"`
	var out []StatusRange
	for _, part := range strings.Split(text, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		l, errLow := status(low)
		h, errHigh := status(high)
		if !errLow || !errHigh || l > h {
			return nil, &refusal{"expect " + quote(text) + ": " + quote(strings.TrimSpace(part)) + " is no status from 200 to 599", hint}
		}
		out = append(out, StatusRange{l, h})
	}
	slices.SortFunc(out, func(a, b StatusRange) int { return a.Low - b.Low })
	joined := out[:1]
	for _, r := range out[1:] {
		if last := &joined[len(joined)-1]; r.Low <= last.High+1 {
			last.High = max(last.High, r.High)
			continue
		}
		joined = append(joined, r)
	}
	return joined, nil
}

// status reads a final status; 1xx are none.
func status(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && len(s) == 3 && n >= 200 && n <= 599
}

// ownHeaders are fields that a check sets itself.
var ownHeaders = []string{"host", "connection", "content-length", "transfer-encoding", "upgrade", "expect", "te", "trailer"}

func (b *builder) readHeaders(t *table) []Header {
	ht := t.table("headers", t.title+" headers")
	if ht == nil {
		return nil
	}
	var out []Header
	seen := map[string]bool{}
	for _, name := range ht.keys() {
		at, _ := ht.places(name)
		value, valueAt, ok := ht.text(name)
		lower := strings.ToLower(name)
		switch {
		case !isToken(name) || len(name) > maxText:
			b.errorf(at, "", "%s%s is no header's name", quote(name), ht.in())
		case slices.Contains(ownHeaders, lower):
			hint := ""
			if lower == "host" {
				hint = "host is a key of its own"
			}
			b.errorf(at, hint, "header %s%s is set by the check itself", quote(name), t.in())
		case seen[lower]:
			b.errorf(at, "", "header %s%s stands twice", quote(name), t.in())
		case ok && (!isFieldValue(value) || len(value) > maxText):
			b.errorf(valueAt, "", "header %s%s: %s is no header's value", quote(name), t.in(), quote(value))
		case ok && len(out) == maxHeaders:
			b.errorf(at, "", "more than %d headers%s", maxHeaders, t.in())
		case ok:
			out = append(out, Header{name, value})
		}
		seen[lower] = true
	}
	slices.SortFunc(out, func(a, b Header) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// isVisible: printable ASCII without a space.
func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isFieldValue: printable ASCII, no space at either end.
func isFieldValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return strings.TrimSpace(s) == s
}

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c > '~' || strings.IndexByte(`()<>@,;:\"/[]?={}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// isHost: a name, an address, or one of both with a port.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Port() != 0
	}
	name, port, said := strings.Cut(s, ":")
	if n, err := strconv.ParseUint(port, 10, 16); said && (err != nil || n == 0) {
		return false
	}
	if name == "" || len(name) > 253 {
		return false
	}
	for _, label := range strings.Split(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "-") != label {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// durationText is the shortest form that ParseDuration reads again.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
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

// ExpectText is Expect as the configuration has it.
func (h *Health) ExpectText() string {
	parts := make([]string, len(h.Expect))
	for i, e := range h.Expect {
		parts[i] = e.String()
	}
	return strings.Join(parts, ",")
}
