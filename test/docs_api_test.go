package test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
)

const (
	apiMark = "<!-- from the OpenAPI file -->\n"
	endMark = "<!-- end -->"
)

// The reference of the API is what the OpenAPI file says, which is made of what validates.
func TestDocs_apiIsWhatTheOpenAPIFileSays(t *testing.T) {
	t.Parallel()
	name := filepath.Join(repository(t), "docs", "api.md")
	old, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(old), apiMark)
	_, after, ended := strings.Cut(rest, endMark)
	if !ok || !ended {
		t.Fatalf("%s has no %q … %q", name, strings.TrimSpace(apiMark), endMark)
	}
	fresh := []byte(before + apiMark + readOpenAPI(t).reference() + endMark + after)
	requireFresh(t, name, old, fresh, "the OpenAPI file says")
}

// openAPI is what the reference tells of the file.
type openAPI struct {
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	Summary     string                `json:"summary"`
	Description string                `json:"description"`
	Security    []map[string][]string `json:"security"`
	Badge       string                `json:"x-badge-token"`
	Parameters  []struct {
		Name        string `json:"name"`
		In          string `json:"in"`
		Description string `json:"description"`
		Schema      schema `json:"schema"`
	} `json:"parameters"`
	RequestBody struct {
		Content map[string]media `json:"content"`
	} `json:"requestBody"`
	Responses map[string]struct {
		Content map[string]media `json:"content"`
	} `json:"responses"`
}

type media struct {
	Schema schema `json:"schema"`
}

type schema struct {
	Ref         string            `json:"$ref"`
	Type        any               `json:"type"` // a string, or a list of them
	Description string            `json:"description"`
	Properties  map[string]schema `json:"properties"`
	Items       *schema           `json:"items"`
	Enum        []any             `json:"enum"`
	Default     any               `json:"default"`
	AnyOf       []schema          `json:"anyOf"`
	OneOf       []schema          `json:"oneOf"`
}

func readOpenAPI(t *testing.T) openAPI {
	t.Helper()
	handler, err := api.New(api.Config{Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/openapi.json", nil))
	var file openAPI
	if err := json.Unmarshal(w.Body.Bytes(), &file); err != nil || len(file.Paths) == 0 {
		t.Fatalf("reading the OpenAPI file: %v", err)
	}
	return file
}

var httpMethods = []string{"get", "post", "put", "patch", "delete"}

// reference is the operations in a table and one by one, and then what they speak of.
func (o openAPI) reference() string {
	var table, one strings.Builder
	table.WriteString("| | role | badge token | |\n| --- | --- | --- | --- |\n")
	for _, where := range slices.Sorted(maps.Keys(o.Paths)) {
		for _, method := range httpMethods {
			if op, ok := o.Paths[where][method]; ok {
				name := strings.ToUpper(method) + " " + where
				fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", name, op.role(), op.Badge, op.Summary)
				o.operation(&one, name, op)
			}
		}
	}
	return table.String() + one.String() + o.objects()
}

func (op operation) role() string {
	for _, s := range op.Security {
		for _, roles := range s {
			return strings.Join(roles, ", ")
		}
	}
	return "none"
}

// operation tells what can't be seen in the table.
func (o openAPI) operation(b *strings.Builder, name string, op operation) {
	fmt.Fprintf(b, "\n### %s\n\n%s.", name, op.Summary)
	if op.Description != "" {
		fmt.Fprintf(b, " %s", op.Description)
	}
	b.WriteString("\n\n")
	for _, p := range op.Parameters {
		if p.In != "path" {
			row(b, p.Name, p.In, p.Schema, p.Description)
		}
	}
	for _, m := range op.RequestBody.Content {
		for _, field := range slices.Sorted(maps.Keys(o.resolve(m.Schema).Properties)) {
			p := o.resolve(m.Schema).Properties[field]
			row(b, field, "body, "+o.kind(p), p, p.Description)
		}
	}
	var answers []string
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		if status < "300" {
			answers = append(answers, o.answer(status, op.Responses[status].Content))
		}
	}
	fmt.Fprintf(b, "- Answers %s\n", strings.Join(answers, ", "))
}

func row(b *strings.Builder, name, where string, s schema, description string) {
	fmt.Fprintf(b, "- **`%s`** (%s)", name, where)
	if description != "" {
		b.WriteString(": " + description)
	}
	if s.Default != nil {
		fmt.Fprintf(b, " Default: %v.", s.Default)
	}
	b.WriteString("\n")
}

func (o openAPI) answer(status string, content map[string]media) string {
	for _, m := range content {
		if m.Schema.Ref != "" {
			return status + " with " + o.kind(m.Schema)
		}
	}
	return status
}

func (o openAPI) resolve(s schema) schema {
	if s.Ref != "" {
		return o.Components.Schemas[path.Base(s.Ref)]
	}
	return s
}

// kind names a type as a reader of JSON would.
func (o openAPI) kind(s schema) string {
	switch {
	case s.Ref != "":
		name := path.Base(s.Ref)
		return "[" + name + "](#" + strings.ToLower(name) + ")"
	case s.Items != nil:
		return "list of " + o.kind(*s.Items)
	}
	switch kind := s.Type.(type) {
	case string:
		return kind
	case []any:
		var kinds []string
		for _, k := range kind {
			if k == "array" && s.Items != nil {
				k = "list of " + o.kind(*s.Items)
			}
			kinds = append(kinds, fmt.Sprint(k))
		}
		return strings.Join(kinds, " or ")
	}
	var kinds []string
	for _, other := range slices.Concat(s.AnyOf, s.OneOf) {
		if k := o.kind(other); !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
	}
	if kinds == nil {
		return "any"
	}
	return strings.Join(kinds, " or ")
}

// objects are the schemas that the operations refer to.
func (o openAPI) objects() string {
	var b strings.Builder
	b.WriteString("\n## Objects\n")
	for _, name := range slices.SortedFunc(maps.Keys(o.Components.Schemas), byLowerCase) {
		if o.isBody(name) {
			continue // told with its operation
		}
		s := o.Components.Schemas[name]
		fmt.Fprintf(&b, "\n### %s\n\n", name)
		if s.Description != "" {
			fmt.Fprintf(&b, "%s\n\n", s.Description)
		}
		for _, field := range slices.Sorted(maps.Keys(s.Properties)) {
			p := s.Properties[field]
			row(&b, field, o.kind(p), p, p.Description)
		}
	}
	return b.String()
}

// isBody tells whether a schema is what an operation is sent.
func (o openAPI) isBody(name string) bool {
	for _, methods := range o.Paths {
		for _, op := range methods {
			for _, m := range op.RequestBody.Content {
				if path.Base(m.Schema.Ref) == name {
					return true
				}
			}
		}
	}
	return false
}

func byLowerCase(a, b string) int { return cmp.Compare(strings.ToLower(a), strings.ToLower(b)) }
