package openapi

import (
	"strings"
	"testing"
)

// What is not said is refused: a check that lets everything through would show
// nothing.
func TestCheck(t *testing.T) {
	zero := 0
	thing := &Schema{Type: Types{"object"}, Required: []string{"name", "list"}, Additional: &Additional{}, Properties: map[string]*Schema{
		"name":  {Type: Types{"string"}, Enum: []string{"a", "b"}},
		"count": {Type: Types{"integer"}, Minimum: &zero},
		"ratio": {Type: Types{"number"}},
		"at":    {Type: Types{"string"}, Format: "date-time"},
		"list":  {Type: Types{"array", "null"}, Items: &Schema{Ref: "#/components/schemas/Thing"}},
		"words": {Type: Types{"object"}, Additional: &Additional{Schema: &Schema{Type: Types{"boolean"}}}},
	}}
	answer := map[string]Media{"application/json": {Schema: &Schema{Ref: "#/components/schemas/Thing"}}}
	d := &Document{
		Paths:      map[string]map[string]Operation{"/x": {"get": {Responses: map[string]Response{"200": {Content: answer}, "default": {Content: answer}}}}},
		Components: Components{Schemas: map[string]*Schema{"Thing": thing}},
	}
	for _, test := range []struct{ body, want string }{
		{`{"name": "a", "list": null, "count": 3, "ratio": 1, "at": "2026-01-02T03:04:05.678Z", "words": {"x": true}}`, ""},
		{`{"name": "a", "list": [{"name": "b", "list": []}], "ratio": 0.5}`, ""},
		{`{"name": "c", "list": null}`, `"c", want one of`},
		{`{"list": null}`, "has no name"},
		{`{"name": "a", "list": null, "more": 1}`, "more is not in the document"},
		{`{"name": "a", "list": [{"name": "b", "list": {}}]}`, "list[0].list is object"},
		{`{"name": "a", "list": null, "count": -1}`, "at least 0"},
		{`{"name": "a", "list": null, "count": 1.5}`, "count is number, want integer"},
		{`{"name": null, "list": null}`, "name is null"},
		{`{"name": "a", "list": null, "at": "yesterday"}`, "yesterday"},
		{`{"name": "a", "list": null, "words": {"x": 1}}`, "words.x is integer"},
		{`{"name": "a", "list": null} {}`, "has no"},
		{``, "EOF"},
	} {
		err := d.Check("GET", "/x", 200, "application/json", []byte(test.body))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.body, err, test.want)
		}
	}
	if err := d.Check("POST", "/x", 200, "application/json", []byte(`{}`)); err == nil {
		t.Error("a request that is not in the document passes")
	}
	if err := d.Check("GET", "/x", 204, "application/json", nil); err == nil {
		t.Error("a status that is not in the document passes")
	}
	if err := d.Check("GET", "/x", 200, "text/html", nil); err == nil {
		t.Error("a type that is not in the document passes")
	}
}
