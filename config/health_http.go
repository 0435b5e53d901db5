package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

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

// ExpectText is Expect as the configuration has it.
func (h *Health) ExpectText() string {
	parts := make([]string, len(h.Expect))
	for i, e := range h.Expect {
		parts[i] = e.String()
	}
	return strings.Join(parts, ",")
}

// readHTTP reads what only checks over HTTP and HTTPS have.
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
}

// readTLS reads what only checks over HTTPS have.
func (b *builder) readTLS(t *table, h *Health) {
	h.Insecure = t.boolean("insecure", false)
	if s, at, ok := t.text("ca_file"); ok {
		if !strings.HasPrefix(s, "/") || strings.ContainsRune(s, 0) {
			b.errorf(at, "", "ca_file %s%s is not an absolute path", quote(s), t.in())
		}
		if h.Insecure {
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
