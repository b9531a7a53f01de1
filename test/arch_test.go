// Package test holds what needs several parts at once, and the rules that hold for all of them.
package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/sandman-proxy/sandman/"
	caddy  = "github.com/caddyserver/caddy/"
	etcd   = "go.etcd.io/etcd/"
)

// rooms is the table of ARCHITECTURE.md: each folder, and what of ours its code may import besides
// itself. "internal" stands for every room below it. A new room gets a line here and there.
var rooms = map[string][]string{
	"caddymodule":        {"internal"},
	"cmd/sandman":        {"caddymodule"},
	"cmd/sandboxd":       {"internal/sandboxd"},
	"cmd/sandbench":      {"internal"},
	"internal/session":   {},
	"internal/store":     {"internal/session"},
	"internal/activity":  {"internal/session", "internal/failpoint"},
	"internal/stream":    {},
	"internal/noise":     {},
	"internal/handover":  {},
	"internal/wake":      {"internal/session", "internal/failpoint"},
	"internal/pauser":    {"internal/session", "internal/failpoint"},
	"internal/e2b":       {},
	"internal/sandboxd":  {"internal/e2b"},
	"internal/api":       {"internal/session", "internal/e2b"},
	"internal/engine":    {"internal"}, // wires the others to each other
	"internal/cli":       {},           // knows Sandman by its API
	"internal/demo":      {},
	"internal/dashboard": {},
	"internal/failpoint": {},
	"internal/telemetry": {},
	"test":               {"internal", "caddymodule", "cmd"},
}

// importers says who may name a system directly. Everybody else gets it, if at all, through them.
var importers = map[string][]string{
	caddy: {"caddymodule", "cmd/sandman", "test"},
	etcd:  {"internal/store", "test"},
}

// carriers says whose binaries may contain a system, on whatever way it came in.
var carriers = map[string][]string{
	caddy: {"caddymodule", "cmd/sandman", "test"},
	etcd:  {"internal/store", "internal/engine", "caddymodule", "cmd/sandman", "cmd/sandbench", "test"},
}

// The tests of a room may use any other room below internal, since they try it with the real parts.
func TestArchitecture_everyRoomImportsOnlyWhatItsLineAllows(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		room := roomOf(f.dir)
		if room == "" {
			t.Errorf("%s is in no known room: give its folder a line in the table of rooms", f.path)
			continue
		}
		allowed := slices.Concat([]string{room}, rooms[room])
		if strings.HasSuffix(f.path, "_test.go") {
			allowed = append(allowed, "internal")
		}
		for _, imported := range f.imports() {
			if dir, ours := strings.CutPrefix(imported+"/", module); ours && !within(dir, allowed) {
				t.Errorf("%s imports %s, which the room %s may not", f.path, imported, room)
			}
			for system, by := range importers {
				if strings.HasPrefix(imported, system) && !slices.Contains(by, room) {
					t.Errorf("%s imports %s; only %s may", f.path, imported, strings.Join(by, ", "))
				}
			}
		}
	}
}

func TestArchitecture_noRoomDragsInCaddyOrEtcd(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		room := roomOf(strings.TrimPrefix(p.ImportPath+"/", module))
		for system, by := range carriers {
			i := slices.IndexFunc(p.Deps, func(dep string) bool { return strings.HasPrefix(dep, system) })
			if i >= 0 && !slices.Contains(by, room) {
				t.Errorf("%s depends on %s", p.ImportPath, p.Deps[i])
			}
		}
	}
}

const (
	maxFileLines     = 500
	maxFunctionLines = 80
)

func TestStyle_filesAndFunctionsStayReadable(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if ast.IsGenerated(f.ast) {
			continue
		}
		if n := f.lines(f.ast.FileStart, f.ast.FileEnd); n > maxFileLines {
			t.Errorf("%s has %d lines, more than %d: which of its subjects is a file of its own?", f.path, n, maxFileLines)
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name == "UnmarshalCaddyfile" { // one flat switch over the subdirectives
				continue
			}
			if n := f.lines(fn.Pos(), fn.End()); n > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, more than %d", f.path, fn.Name.Name, n, maxFunctionLines)
			}
		}
	}
}

// roomOf returns the longest entry of the table that holds dir, or "".
func roomOf(dir string) string {
	for d := path.Clean(dir); d != "."; d = path.Dir(d) {
		if _, ok := rooms[d]; ok {
			return d
		}
	}
	return ""
}

func within(dir string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return strings.HasPrefix(dir, f+"/") })
}

// source is one Go file of this module, whatever system it is built for.
type source struct {
	path, dir string // relative to the module's root, with slashes
	ast       *ast.File
	fset      *token.FileSet
}

func (f source) imports() []string {
	var paths []string
	for _, spec := range f.ast.Imports {
		p, _ := strconv.Unquote(spec.Path.Value) // the parser has seen that it is a string
		paths = append(paths, p)
	}
	return paths
}

func (f source) lines(from, to token.Pos) int {
	return f.fset.Position(to).Line - f.fset.Position(from).Line + 1
}

// sources parses every Go file below the module's root. Files for other systems count too, so the
// build's own choice (go list) is not asked.
func sources(t *testing.T) []source {
	t.Helper()
	const root = ".."
	var files []source
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		rel := filepath.ToSlash(strings.TrimPrefix(name, root+string(filepath.Separator)))
		files = append(files, source{path: rel, dir: path.Dir(rel), ast: parsed, fset: fset})
		return err
	})
	if err != nil {
		t.Fatalf("reading the sources: %v", err)
	}
	if len(files) == 0 {
		t.Fatal("no Go file found: the rules would hold for nothing")
	}
	return files
}

type listedPackage struct {
	ImportPath string
	Deps       []string
}

// listPackages asks the go command for every package of this module with all that goes into it.
func listPackages(t *testing.T) []listedPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Deps", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	var packages []listedPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages
		case err != nil:
			t.Fatalf("reading the answer of %s: %v", cmd, err)
		}
		packages = append(packages, p)
	}
}
