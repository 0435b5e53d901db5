package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/internal/openapi"
)

var update = flag.Bool("update", false, "write docs/openapi.json")

const documentPath = "../docs/openapi.json"

// operation is what the document says of a route beside what its types say.
type operation struct {
	summary string
	query   []openapi.Parameter
	answer  any    // an example of the type; nil: text
	kind    string // "" = application/json
}

func query(name string, required bool, kind, description string) openapi.Parameter {
	s := &openapi.Schema{Type: openapi.Types{kind}}
	if kind == "array" {
		s.Items = &openapi.Schema{Type: openapi.Types{"string"}}
	}
	return openapi.Parameter{Name: name, In: "query", Required: required, Description: description, Schema: s}
}

// orderQuery is of what takes backends out or back.
var orderQuery = []openapi.Parameter{
	query("timeout", false, "string", "how long to wait for another backend that is about to come, or for a first check: a duration such as 30s, up to 10m0s"),
	query("force", false, "boolean", "true: also where a VIP is left with nothing that takes connections"),
}

// operations are the routes. One that is not here fails TestDocument: write what
// it is for, then go test ./api -run TestDocument -update.
var operations = map[string]operation{
	"GET /v1/status":           {summary: "The daemon on one screen.", answer: Status{}},
	"GET /v1/vips/{name}":      {summary: "One VIP as it runs.", answer: VIP{}},
	"GET /v1/groups/{name...}": {summary: "One group, or a split child of one, with its cgroups. The name may hold slashes.", answer: Group{}},
	"GET /v1/config":           {summary: "What runs, as one merged file.", answer: RunningConfig{}},
	"GET /v1/policy":           {summary: "The rules of policy, what they have decided, and what audits have seen.", answer: Policy{}},
	"GET /v1/dump":             {summary: "What the kernel's maps hold, as text.", answer: Dump{}},
	"GET /v1/explain": {summary: "What a call from a cgroup to an address gets, and why.", answer: Explanation{}, query: []openapi.Parameter{
		query("address", false, "string", "address:port, or address:port/udp; every VIP where it is left out"),
		query("cgroup", true, "string", "the caller's cgroup, below the cgroup root"),
		query("process", false, "boolean", "true: cgroup is what /proc/PID/cgroup had"),
		query("elsewhere", false, "boolean", "true: the caller is in another network namespace than the daemon"),
		query("id", false, "array", "the ids of the cgroup and of what it lies in, innermost first, for those that the daemon may not see"),
	}},
	"GET /v1/observe": {summary: "Decisions, one a line; with follow, as they are made.", answer: Observed{}, kind: "application/x-ndjson", query: []openapi.Parameter{
		query("vip", false, "string", "of this VIP alone"),
		query("group", false, "string", "of this group's callers alone, or of a split child's"),
		query("verdict", false, "array", "of these verdicts alone"),
		query("since", false, "string", "of this time (RFC 3339) and after"),
		query("last", false, "integer", "so many of what is stored at most"),
		query("follow", false, "boolean", "true: go on with what comes"),
	}},
	"GET /v1/top":  {summary: "What was counted until now; the differences of two answers are rates. Connects are timed for a while then.", answer: Top{}},
	"GET /metrics": {summary: "Metrics for Prometheus, in its text format.", kind: "text/plain"},
	"POST /v1/reload": {summary: "Reads the configuration again, and answers when the kernel has it. For root.", answer: Reloaded{}, query: []openapi.Parameter{
		query("timeout", true, "string", "how long to wait: a duration such as 30s, up to 10m0s"),
	}},
	"POST /v1/vips/{vip}/backends/{address}/{state}": {summary: "Drains a backend (drain), takes it out (maint) or takes both back (ready). For root.", answer: BackendChanged{}, query: orderQuery},
	"POST /v1/units/{unit}/{state}":                  {summary: "The same for every backend that is this unit. For root.", answer: BackendChanged{}, query: orderQuery},
	"GET /v1/vips/{vip}/backends/{address}/live":     {summary: "How many open sockets a backend has.", answer: Live{}},
	"GET /v1/units/{unit}/live":                      {summary: "The same of every backend that is this unit.", answer: Live{}},
	"GET /v1/picture":                                {summary: "What the status page draws. On the address of [daemon] http, where nothing else of this document is but /metrics.", answer: Picture{}},
}

// notDocumented are the page's files, and the answer to what does not exist.
var notDocumented = []string{"/", "GET /{$}", "GET /icon.svg", "GET /page.css", "GET /page.js", "GET /rates.js", "GET /picture.js", "GET /tables.js", "GET /words.js"}

// The document says what the server's routes and the types are.
func TestDocument(t *testing.T) {
	routed := map[string]bool{}
	metrics := http.NotFoundHandler()
	for _, p := range slices.Concat((&Server{Daemon: fake{}, Metrics: metrics}).routes().patterns, (&Web{Metrics: metrics}).open().patterns) {
		routed[p] = true
		if _, ok := operations[p]; !ok && !slices.Contains(notDocumented, p) {
			t.Errorf("%s is in no document: add it to operations", p)
		}
	}
	for p := range operations {
		if !routed[p] {
			t.Errorf("%s is no route", p)
		}
	}

	doc := document(t)
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(documentPath, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(documentPath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/openapi.json is not what the types and routes say: go test ./api -run TestDocument -update")
	}
	if _, err := openapi.Load(documentPath); err != nil {
		t.Error(err)
	}
}

func document(t *testing.T) *openapi.Document {
	t.Helper()
	d := &openapi.Document{
		OpenAPI: "3.1.0",
		Info: openapi.Info{
			Title: "slicelb", Version: strings.TrimPrefix(Prefix, "/"),
			Description: "HTTP with JSON on the Unix socket /run/slicelb/api.sock. Whoever may open it (root and the group slicelb) reads; " +
				"requests that change something are for root and the daemon's own user, by the credentials that the kernel has of the peer. " +
				"A method that a path does not have is answered with status 405 and its methods in Allow, by the socket as an Error. " +
				"A change that an older client would misread gets another prefix; a new property or request does not. Durations are in nanoseconds.",
		},
		Paths:      map[string]map[string]openapi.Operation{},
		Components: openapi.Components{Schemas: map[string]*openapi.Schema{}},
	}
	s := &schemas{docs: readDocs(t), out: d.Components.Schemas}
	failure := openapi.Response{Description: "What went wrong.", Content: map[string]openapi.Media{
		"application/json": {Schema: s.of(reflect.TypeFor[Error](), "")},
	}}
	for pattern, o := range operations {
		method, path, _ := strings.Cut(pattern, " ")
		path = strings.ReplaceAll(path, "...}", "}")
		op := openapi.Operation{Summary: o.summary, Responses: map[string]openapi.Response{}}
		for part := range strings.SplitSeq(path, "/") {
			if name, ok := strings.CutPrefix(part, "{"); ok {
				p := openapi.Parameter{Name: strings.TrimSuffix(name, "}"), In: "path", Required: true, Schema: &openapi.Schema{Type: openapi.Types{"string"}}}
				if p.Name == "state" {
					p.Schema.Enum = []string{"drain", "maint", "ready"}
				}
				op.Parameters = append(op.Parameters, p)
			}
		}
		op.Parameters = append(op.Parameters, o.query...)
		kind := o.kind
		if kind == "" {
			kind = "application/json"
		}
		schema := &openapi.Schema{Type: openapi.Types{"string"}}
		if o.answer != nil {
			schema = s.of(reflect.TypeOf(o.answer), "")
		}
		description := "The answer."
		if kind == "application/x-ndjson" {
			description = "One of these a line."
		}
		op.Responses["200"] = openapi.Response{Description: description, Content: map[string]openapi.Media{kind: {Schema: schema}}}
		if path != "/metrics" {
			op.Responses["default"] = failure
		}
		if d.Paths[path] == nil {
			d.Paths[path] = map[string]openapi.Operation{}
		}
		d.Paths[path][strings.ToLower(method)] = op
	}
	return d
}

// Each request of the document is answered, and what comes fits it: also from a
// daemon that fails.
func TestAnswersFitDocument(t *testing.T) {
	doc, err := openapi.Load(documentPath)
	if err != nil {
		t.Fatal(err)
	}
	path := serve(t, &failing{})
	c := NewClient(path)
	for p, methods := range doc.Paths {
		if p == Prefix+"/picture" || p == "/metrics" {
			continue
		}
		for method := range methods {
			real := strings.NewReplacer("{name}", "x", "{vip}", "x", "{address}", "192.0.2.1:80", "{state}", "drain", "{unit}", "x.service").Replace(p)
			resp, err := c.send(t.Context(), strings.ToUpper(method), real+"?timeout=1s")
			if err != nil {
				t.Errorf("%s %s: %v", method, p, err)
				continue
			}
			var body bytes.Buffer
			_, err = body.ReadFrom(resp.Body)
			resp.Body.Close()
			if err == nil {
				err = doc.Check(method, p, resp.StatusCode, resp.Header.Get("Content-Type"), body.Bytes())
			}
			if err != nil {
				t.Error(err)
			}
			if resp.StatusCode < 400 {
				t.Errorf("%s %s: status %d of a daemon that fails", method, p, resp.StatusCode)
			}
		}
	}
}
