package test

import (
	"bytes"
	"go/ast"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The reference of the configuration has prose, and between two marks what the
// modules' own comments say:
//
//	<!-- from caddymodule: App -->
//	…
//	<!-- end -->
var docsMark = regexp.MustCompile(`(?s)<!-- from caddymodule: (\w+) -->\n.*?<!-- end -->`)

func TestDocs_sayWhatTheCommentsSay(t *testing.T) {
	t.Parallel()
	path := filepath.Join(repository(t), "docs", "caddyfile.md")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	manual := readManual(t, filepath.Join(repository(t), "caddymodule"))
	var seen []string
	fresh := docsMark.ReplaceAllFunc(old, func(mark []byte) []byte {
		name := string(docsMark.FindSubmatch(mark)[1])
		seen = append(seen, name)
		return []byte("<!-- from caddymodule: " + name + " -->\n" + manual.section(t, name) + "<!-- end -->")
	})
	for name := range manual.types {
		if !slices.Contains(seen, name) {
			t.Errorf("%s is configured by users, and docs/caddyfile.md has no mark for it", name)
		}
	}
	requireFresh(t, path, old, fresh, "the comments say")
}

// requireFresh fails the test if a page is not what its source makes of it; with -update it is made anew.
func requireFresh(t *testing.T, path string, old, fresh []byte, source string) {
	t.Helper()
	switch {
	case bytes.Equal(fresh, old):
	case *update:
		if err := os.WriteFile(path, fresh, 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not what %s: go test ./test -run Docs -update", path, source)
	}
}

// manual is what the comments of a package say to users.
type manual struct {
	types  map[string]*ast.TypeSpec // that are configured, by name
	docs   map[string]string        // the types' comments
	syntax map[string]string        // in a Caddyfile
	ids    map[string]string        // of modules
}

// parsers are the functions whose comment shows a type's syntax where that is
// no UnmarshalCaddyfile.
var parsers = map[string]string{"parseAPI": "API", "parseE2B": "E2BAPI", "parseDashboard": "Dashboard", "parseProxy": "Handler"}

func readManual(t *testing.T, dir string) manual {
	t.Helper()
	m := manual{map[string]*ast.TypeSpec{}, map[string]string{}, map[string]string{}, map[string]string{}}
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no sources in %s: %v", dir, err)
	}
	var files []*ast.File
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	for _, file := range files {
		for _, decl := range file.Decls {
			m.readTypes(decl)
			m.readFunc(decl)
		}
	}
	return m
}

func (m manual) readTypes(decl ast.Decl) {
	gen, ok := decl.(*ast.GenDecl)
	if !ok || gen.Tok != token.TYPE {
		return
	}
	for _, spec := range gen.Specs {
		ts := spec.(*ast.TypeSpec)
		if _, ok := ts.Type.(*ast.StructType); ok && ts.Name.IsExported() {
			m.types[ts.Name.Name] = ts
			m.docs[ts.Name.Name] = gen.Doc.Text()
		}
	}
}

func (m manual) readFunc(decl ast.Decl) {
	fn, ok := decl.(*ast.FuncDecl)
	if !ok {
		return
	}
	name := parsers[fn.Name.Name]
	if fn.Recv != nil {
		name = strings.TrimPrefix(exprText(fn.Recv.List[0].Type), "*")
	}
	switch {
	case fn.Name.Name == "CaddyModule":
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok {
				m.ids[name], _ = strconv.Unquote(lit.Value)
			}
			return true
		})
	case fn.Name.Name == "UnmarshalCaddyfile", fn.Recv == nil && name != "":
		m.syntax[name] = firstCode(fn.Doc.Text())
	}
}

// firstCode returns the first indented block of a comment.
func firstCode(text string) string {
	for _, block := range new(comment.Parser).Parse(text).Content {
		if code, ok := block.(*comment.Code); ok {
			return code.Text
		}
	}
	return ""
}

func exprText(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.StarExpr:
		return "*" + exprText(e.X)
	case *ast.ArrayType:
		return "[]" + exprText(e.Elt)
	case *ast.SelectorExpr:
		return exprText(e.X) + "." + e.Sel.Name
	}
	return "?"
}

// section is what the reference has about one type.
func (m manual) section(t *testing.T, name string) string {
	t.Helper()
	ts, ok := m.types[name]
	if !ok {
		t.Fatalf("docs/caddyfile.md wants %s, which caddymodule does not have", name)
	}
	var b strings.Builder
	b.WriteString(m.docs[name] + "\n")
	if id := m.ids[name]; id != "" {
		b.WriteString("Module: `" + id + "`\n\n")
	}
	if syntax := m.syntax[name]; syntax != "" {
		b.WriteString("```caddyfile\n" + syntax + "```\n\n")
	}
	for _, field := range ts.Type.(*ast.StructType).Fields.List {
		m.field(t, &b, name, field)
	}
	return b.String()
}

// field writes what the comment of a field says; several fields may share one.
func (m manual) field(t *testing.T, b *strings.Builder, of string, field *ast.Field) {
	t.Helper()
	if field.Tag == nil {
		return
	}
	tag, _ := strconv.Unquote(field.Tag.Value)
	name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
	if name == "" || name == "-" {
		return
	}
	text := strings.Join(strings.Fields(field.Doc.Text()), " ")
	if text == "" {
		t.Errorf("%s: %s has no comment", of, name)
	}
	b.WriteString("- **`" + name + "`** (" + kindOf(field.Type) + "): " + text + "\n")
	if strings.HasSuffix(text, ".") {
		return
	}
	t.Errorf("%s: the comment of %s is no sentence", of, name)
}

// kindOf names a field's type as a user sees it in JSON.
func kindOf(e ast.Expr) string {
	switch s := strings.TrimPrefix(exprText(e), "*"); s {
	case "caddy.Duration":
		return "duration"
	case "bool":
		return "true or false"
	case "int", "int64", "float64":
		return "number"
	case "[]string":
		return "list of strings"
	case "[]json.RawMessage":
		return "list of modules"
	case "caddyhttp.RawMatcherSets":
		return "list of matcher sets"
	case "reverseproxy.HTTPTransport":
		return "Caddy's `http` transport"
	default:
		if elem, ok := strings.CutPrefix(s, "[]"); ok {
			return "list of " + elem
		}
		return s
	}
}
