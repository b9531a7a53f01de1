// Crosscheck checks that the packages of this module and their tests compile for another system, without
// compiling them: it reads the types of everything they depend on, from source, and leaves out the
// bodies of what isn't ours. That takes seconds, where a cross-build of all the dependencies takes minutes.
//
//	go run ./test/crosscheck darwin/arm64
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: crosscheck GOOS/GOARCH, in the folder of a module")
		os.Exit(2)
	}
	count, err := check(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "crosscheck:", err)
		os.Exit(1)
	}
	fmt.Printf("%d packages compile for %s\n", count, os.Args[1])
}

// check returns how many packages of this module there are, tests included, or all that is wrong with them.
func check(platform string) (int, error) {
	goos, goarch, _ := strings.Cut(platform, "/")
	sizes := types.SizesFor("gc", goarch)
	if goos == "" || sizes == nil {
		return 0, fmt.Errorf("no such platform: %q", platform)
	}
	packages, err := list(goos, goarch)
	if err != nil {
		return 0, err
	}
	c := checker{sizes: sizes, files: token.NewFileSet(), done: map[string]*types.Package{"unsafe": types.Unsafe}}
	parsed := c.parseAll(packages)
	ours := 0
	for _, p := range packages {
		// what the go tool writes into a test's main package isn't there yet, and not ours
		if strings.HasSuffix(p.ImportPath, ".test") || p.ImportPath == "unsafe" {
			continue
		}
		c.check(p, <-parsed[p.ImportPath])
		if !p.DepOnly && !strings.Contains(p.ImportPath, " ") {
			ours++
		}
	}
	if ours == 0 {
		return 0, errors.New("this folder has no packages")
	}
	return ours, errors.Join(c.wrong...)
}

// goPackage is what `go list` says about a package.
type goPackage struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	ImportMap  map[string]string // what an import means here, where that isn't the package of that name
	DepOnly    bool              // it isn't ours
}

// list returns our packages and all that they need, each one after what it needs.
func list(goos, goarch string) ([]*goPackage, error) {
	cmd := exec.Command("go", "list", "-deps", "-test", "-json=ImportPath,Dir,GoFiles,ImportMap,DepOnly", "./...")
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the packages: %w", err)
	}
	var packages []*goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(goPackage)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading the list of packages: %w", err)
		}
		packages = append(packages, p)
	}
}

type checker struct {
	sizes types.Sizes
	files *token.FileSet
	done  map[string]*types.Package // by import path
	wrong []error
}

type source struct {
	files []*ast.File
	err   error
}

// parseAll begins to parse all packages, and returns for each one where its source will come.
func (c *checker) parseAll(packages []*goPackage) map[string]chan source {
	parsed := make(map[string]chan source, len(packages))
	for _, p := range packages {
		parsed[p.ImportPath] = make(chan source, 1)
	}
	todo := make(chan *goPackage)
	for range runtime.GOMAXPROCS(0) {
		go func() {
			for p := range todo {
				parsed[p.ImportPath] <- c.parse(p)
			}
		}()
	}
	go func() {
		for _, p := range packages {
			todo <- p
		}
		close(todo)
	}()
	return parsed
}

func (c *checker) parse(p *goPackage) source {
	var s source
	for _, name := range p.GoFiles {
		if !filepath.IsAbs(name) {
			name = filepath.Join(p.Dir, name)
		}
		file, err := parser.ParseFile(c.files, name, nil, parser.SkipObjectResolution)
		if err != nil {
			s.err = errors.Join(s.err, err)
			continue
		}
		s.files = append(s.files, file)
	}
	return s
}

// check notes what is wrong with a package of ours. A dependency's own faults are not looked for: they
// would come out as missing names where we use them.
func (c *checker) check(p *goPackage, src source) {
	note := func(err error) {
		// a package is read anew with its tests, and says the same again
		known := slices.ContainsFunc(c.wrong, func(other error) bool { return other.Error() == err.Error() })
		if !p.DepOnly && !known {
			c.wrong = append(c.wrong, err)
		}
	}
	if src.err != nil {
		note(src.err)
	}
	config := types.Config{
		Importer:         importer{c.done, p.ImportMap},
		Sizes:            c.sizes,
		IgnoreFuncBodies: p.DepOnly,
		Error:            note,
	}
	path, _, _ := strings.Cut(p.ImportPath, " ") // "x [y.test]" is x as y's test sees it
	c.done[p.ImportPath], _ = config.Check(path, c.files, src.files, nil)
}

type importer struct {
	done map[string]*types.Package
	as   map[string]string
}

func (i importer) Import(path string) (*types.Package, error) {
	if as, ok := i.as[path]; ok {
		path = as
	}
	if p := i.done[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("package %s is not among what go list named", path)
}
