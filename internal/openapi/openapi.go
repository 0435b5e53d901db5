// Package openapi holds answers of the daemon against docs/openapi.json, for
// tests. It knows as much of OpenAPI 3.1 as that document uses, and is strict:
// what the document does not say is an error.
package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Document is an OpenAPI document.
type Document struct {
	OpenAPI    string                          `json:"openapi"`
	Info       Info                            `json:"info"`
	Paths      map[string]map[string]Operation `json:"paths"` // by path, by method in lower case
	Components Components                      `json:"components"`
}

type Info struct {
	Title       string `json:"title"`
	Version     string `json:"version"`
	Description string `json:"description,omitempty"`
}

type Components struct {
	Schemas map[string]*Schema `json:"schemas"`
}

// Operation is one request.
type Operation struct {
	Summary    string              `json:"summary"`
	Parameters []Parameter         `json:"parameters,omitempty"`
	Responses  map[string]Response `json:"responses"` // by status, or "default"
}

type Parameter struct {
	Name        string  `json:"name"`
	In          string  `json:"in"` // path, query
	Required    bool    `json:"required,omitempty"`
	Description string  `json:"description,omitempty"`
	Schema      *Schema `json:"schema"`
}

type Response struct {
	Description string           `json:"description"`
	Content     map[string]Media `json:"content"` // by type
}

type Media struct {
	Schema *Schema `json:"schema"`
}

// Schema is what a value may be.
type Schema struct {
	Ref         string             `json:"$ref,omitempty"`
	Type        Types              `json:"type,omitempty"`
	Format      string             `json:"format,omitempty"`
	Description string             `json:"description,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Minimum     *int               `json:"minimum,omitempty"`
	Properties  map[string]*Schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Additional  *Additional        `json:"additionalProperties,omitempty"`
	Items       *Schema            `json:"items,omitempty"`
}

// Types is one type or several; "null" may be one.
type Types []string

func (t Types) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return json.Marshal(t[0])
	}
	return json.Marshal([]string(t))
}

func (t *Types) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = Types{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// Additional is what properties without a name of their own may be; no schema:
// there are none.
type Additional struct{ Schema *Schema }

func (a Additional) MarshalJSON() ([]byte, error) {
	if a.Schema == nil {
		return []byte("false"), nil
	}
	return json.Marshal(a.Schema)
}

func (a *Additional) UnmarshalJSON(b []byte) error {
	if string(b) == "false" {
		return nil
	}
	return json.Unmarshal(b, &a.Schema)
}

// Load reads a document.
func Load(path string) (*Document, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	d := new(Document)
	if err := dec.Decode(d); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// Check holds an answer against what the document says of its request. The path
// is the document's: "/v1/vips/{name}".
func (d *Document) Check(method, path string, status int, contentType string, body []byte) error {
	op, ok := d.Paths[path][strings.ToLower(method)]
	if !ok {
		return fmt.Errorf("%s %s is not in the document", method, path)
	}
	resp, ok := op.Responses[strconv.Itoa(status)]
	if !ok {
		if resp, ok = op.Responses["default"]; !ok || status < 400 {
			return fmt.Errorf("%s %s: the document has no status %d", method, path, status)
		}
	}
	kind, _, _ := strings.Cut(contentType, ";")
	media, ok := resp.Content[kind]
	if !ok {
		return fmt.Errorf("%s %s: the document has no %q for status %d", method, path, kind, status)
	}
	switch kind {
	case "application/json", "application/x-ndjson":
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.UseNumber()
		for n := 0; ; n++ {
			var v any
			err := dec.Decode(&v)
			if errors.Is(err, io.EOF) && (n > 0 || kind == "application/x-ndjson") {
				return nil
			}
			if err == nil {
				err = d.fits(media.Schema, v, "answer")
			}
			if err == nil && n > 0 && kind == "application/json" {
				err = errors.New("more than one value")
			}
			if err != nil {
				return fmt.Errorf("%s %s, status %d: %w", method, path, status, err)
			}
		}
	}
	return nil
}

// fits says why a value is not what a schema describes; nil: it is.
func (d *Document) fits(s *Schema, v any, at string) error {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		to, ok := d.Components.Schemas[name]
		if !ok {
			return fmt.Errorf("%s: the document has no %s", at, s.Ref)
		}
		return d.fits(to, v, at)
	}
	kind := kindOf(v)
	if kind == "integer" && !slices.Contains(s.Type, kind) && slices.Contains(s.Type, "number") {
		kind = "number"
	}
	if !slices.Contains(s.Type, kind) {
		return fmt.Errorf("%s is %s, want %s", at, kind, strings.Join(s.Type, " or "))
	}
	switch v := v.(type) {
	case string:
		if s.Enum != nil && !slices.Contains(s.Enum, v) {
			return fmt.Errorf("%s is %q, want one of %q", at, v, s.Enum)
		}
		if _, err := time.Parse(time.RFC3339Nano, v); s.Format == "date-time" && err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	case json.Number:
		if n, err := v.Float64(); s.Minimum != nil && (err != nil || n < float64(*s.Minimum)) {
			return fmt.Errorf("%s is %s, want at least %d", at, v, *s.Minimum)
		}
	case []any:
		for i, e := range v {
			if err := d.fits(s.Items, e, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				return fmt.Errorf("%s has no %s", at, name)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			p := s.Properties[name]
			if p == nil && s.Additional != nil {
				p = s.Additional.Schema
			}
			if p == nil {
				return fmt.Errorf("%s.%s is not in the document", at, name)
			}
			if err := d.fits(p, v[name], at+"."+name); err != nil {
				return err
			}
		}
	}
	return nil
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case json.Number:
		if f, err := v.Float64(); err == nil && f == math.Trunc(f) && !strings.ContainsAny(v.String(), ".eE") {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	default:
		return "object"
	}
}
