package api

import (
	"net/http"
	"strings"
)

// mux knows what it routes, so that a test can hold that against the document.
type mux struct {
	*http.ServeMux
	patterns []string
}

func newMux() *mux { return &mux{ServeMux: http.NewServeMux()} }

func (m *mux) Handle(pattern string, h http.Handler) {
	m.patterns = append(m.patterns, pattern)
	m.ServeMux.Handle(pattern, h)
}

func (m *mux) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	m.Handle(pattern, http.HandlerFunc(h))
}

// other is the pattern of what no other routes.
const other = "/"

// methods are those that the path of a request has, as Allow lists them; "" where
// there is no such path.
func (m *mux) methods(r *http.Request) string {
	var have []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		asked := &http.Request{Method: method, Host: r.Host, URL: r.URL}
		if _, pattern := m.Handler(asked); pattern != other {
			have = append(have, method)
		}
	}
	return strings.Join(have, ", ")
}
