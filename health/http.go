package health

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// maxAnswer is how much of an answer is read.
const maxAnswer = 4096

// request is what an HTTP check sends; nil for others.
func request(c *Check, to netip.AddrPort) []byte {
	if c.Type == TCP {
		return nil
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\n", c.Path, hostField(c, to))
	for _, own := range []Header{{"User-Agent", "slicelb"}, {"Accept", "*/*"}} {
		if !slices.ContainsFunc(c.Headers, func(h Header) bool { return strings.EqualFold(h.Name, own.Name) }) {
			fmt.Fprintf(&b, "%s: %s\r\n", own.Name, own.Value)
		}
	}
	for _, h := range c.Headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h.Name, h.Value)
	}
	b.WriteString("Connection: close\r\n\r\n")
	return b.Bytes()
}

// hostField is the value of Host: a port that goes without saying is not said.
func hostField(c *Check, to netip.AddrPort) string {
	host := c.Host
	if host == "" {
		host = to.String()
		if c.Type == HTTP && to.Port() == 80 || c.Type == HTTPS && to.Port() == 443 {
			host = to.Addr().String()
		}
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		host = "[" + host + "]"
	}
	return host
}

// serverName is who a certificate must be for: a name, or an address.
func serverName(c *Check, to netip.AddrPort) string {
	if c.Host == "" {
		return to.Addr().String()
	}
	if ap, err := netip.ParseAddrPort(c.Host); err == nil {
		return ap.Addr().String()
	}
	if _, err := netip.ParseAddr(c.Host); err == nil {
		return c.Host
	}
	name, _, _ := strings.Cut(c.Host, ":")
	return name
}

// statusError is an answer with a status that is not expected.
type statusError int

func (e statusError) Error() string { return "status " + strconv.Itoa(int(e)) }

// answered judges the beginning of an answer; false: more of it is needed.
// Interim answers (1xx) are passed over.
func answered(c *Check, b []byte) (bool, error) {
	for {
		const version = "HTTP/1."
		if n := min(len(b), len(version)); string(b[:n]) != version[:n] {
			return true, fmt.Errorf("the answer is not HTTP/1: it begins with %q", b[:min(len(b), 16)])
		}
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if !whole {
			return false, nil
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		// "HTTP/1.1 200", and then a space or nothing.
		if len(line) < 12 || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
			return true, fmt.Errorf("the answer's status is unreadable: %q", line[:min(len(line), 32)])
		}
		status, err := strconv.ParseUint(string(line[9:12]), 10, 16)
		if err != nil || status < 100 {
			return true, fmt.Errorf("the answer's status is unreadable: %q", line[:min(len(line), 32)])
		}
		if status >= 200 || status == 101 {
			for _, r := range c.Expect {
				if r.Low <= int(status) && int(status) <= r.High {
					return true, nil
				}
			}
			return true, statusError(status)
		}
		if b, whole = afterBlank(rest); !whole {
			return false, nil
		}
	}
}

// afterBlank is what follows the first empty line.
func afterBlank(b []byte) ([]byte, bool) {
	for {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if !whole {
			return nil, false
		}
		if len(bytes.TrimSuffix(line, []byte("\r"))) == 0 {
			return rest, true
		}
		b = rest
	}
}
