package api

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/openapi"
)

// schemas makes schemas of this package's types: their fields by reflection,
// what they mean from the comments in the source.
type schemas struct {
	docs *docs
	out  map[string]*openapi.Schema
}

// of is a type's schema; named structs go to the components. A slice may be null
// where its comment says so.
func (s *schemas) of(t reflect.Type, comment string) *openapi.Schema {
	simple := func(kind, format string) *openapi.Schema {
		return &openapi.Schema{Type: openapi.Types{kind}, Format: format}
	}
	switch {
	case t == reflect.TypeFor[time.Time]():
		return simple("string", "date-time")
	case t == reflect.TypeFor[time.Duration]():
		return simple("integer", "int64")
	}
	null := func(x *openapi.Schema) *openapi.Schema {
		if strings.Contains(comment, "null") {
			x.Type = append(x.Type, "null")
		}
		return x
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem(), comment)
	case reflect.String:
		x := simple("string", "")
		x.Enum = s.docs.values[t.Name()]
		return x
	case reflect.Bool:
		return simple("boolean", "")
	case reflect.Int, reflect.Int32, reflect.Int64:
		return simple("integer", "int64")
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		zero := 0
		x := simple("integer", "")
		x.Minimum = &zero
		return x
	case reflect.Float64:
		return simple("number", "double")
	case reflect.Slice:
		x := simple("array", "")
		x.Items = s.of(t.Elem(), "")
		return null(x)
	case reflect.Map:
		x := simple("object", "")
		x.Additional = &openapi.Additional{Schema: s.of(t.Elem(), "")}
		return null(x)
	case reflect.Struct:
		if _, done := s.out[t.Name()]; !done {
			x := &openapi.Schema{}
			s.out[t.Name()] = x // before its fields: they may hold it
			s.object(x, t)
		}
		return &openapi.Schema{Ref: "#/components/schemas/" + t.Name()}
	}
	panic("no schema for " + t.String())
}

func (s *schemas) object(x *openapi.Schema, t reflect.Type) {
	x.Type, x.Description = openapi.Types{"object"}, s.docs.types[t.Name()]
	x.Additional, x.Properties, x.Required = &openapi.Additional{}, map[string]*openapi.Schema{}, []string{}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		comment := s.docs.fields[t.Name()+"."+f.Name]
		p := s.of(f.Type, comment)
		if p.Ref == "" || comment != "" {
			p.Description = comment
		}
		x.Properties[name] = p
		if !strings.Contains(options, "omit") {
			x.Required = append(x.Required, name)
		}
	}
	slices.Sort(x.Required)
}

// docs are the comments of this package.
type docs struct {
	types  map[string]string   // by type
	fields map[string]string   // by type and field
	values map[string][]string // constants of a type of string
}

func readDocs(t *testing.T) *docs {
	t.Helper()
	d := &docs{types: map[string]string{}, fields: map[string]string{}, values: map[string][]string{}}
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if decl, ok := decl.(*ast.GenDecl); ok {
				d.read(decl)
			}
		}
	}
	return d
}

func (d *docs) read(decl *ast.GenDecl) {
	words := func(groups ...*ast.CommentGroup) string {
		var all []string
		for _, g := range groups {
			all = append(all, strings.Fields(g.Text())...)
		}
		return strings.Join(all, " ")
	}
	for _, spec := range decl.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			d.types[spec.Name.Name] = words(decl.Doc)
			if st, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range st.Fields.List {
					for _, name := range f.Names {
						d.fields[spec.Name.Name+"."+name.Name] = words(f.Doc, f.Comment)
					}
				}
			}
		case *ast.ValueSpec:
			kind, ok := spec.Type.(*ast.Ident)
			if !ok || decl.Tok != token.CONST {
				continue
			}
			for _, v := range spec.Values {
				if lit, ok := v.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if text, err := strconv.Unquote(lit.Value); err == nil {
						d.values[kind.Name] = append(d.values[kind.Name], text)
					}
				}
			}
		}
	}
}

// failing answers nothing but that it fails.
type failing struct{ Daemon }

func (*failing) Status(context.Context) (*Status, error)       { return nil, Errorf(Failed, "no") }
func (*failing) VIP(context.Context, string) (*VIP, error)     { return nil, Errorf(NotFound, "no") }
func (*failing) Group(context.Context, string) (*Group, error) { return nil, Errorf(NotFound, "no") }
func (*failing) RunningConfig(context.Context) (*RunningConfig, error) {
	return nil, Errorf(NotFound, "no")
}
func (*failing) Explain(context.Context, Question) (*Explanation, error) {
	return nil, Errorf(BadRequest, "no")
}
func (*failing) Policy(context.Context) (*Policy, error)   { return nil, Errorf(Busy, "no") }
func (*failing) Dump(context.Context) (*Dump, error)       { return nil, Errorf(Busy, "no") }
func (*failing) Reload(context.Context) (*Reloaded, error) { return nil, Errorf(Timeout, "no") }
func (*failing) SetBackend(context.Context, BackendChange) (*BackendChanged, error) {
	return nil, &Error{Code: Forbidden, Text: "no", Hint: "ask"}
}
func (*failing) Observe(context.Context, Observation) (Stream, error) {
	return nil, Errorf(Failed, "no")
}

func (*failing) Top(context.Context) (*Top, error) { return nil, Errorf(Busy, "no") }
func (*failing) Live(context.Context, BackendChange) (*Live, error) {
	return nil, Errorf(NotFound, "no")
}
