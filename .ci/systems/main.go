// Command systems checks that the program, with its tests, holds on the systems
// that nothing is run on: the types, and what vet looks for. It does not
// generate code, which would take most of a minute for each.
//
//	systems FOLDER GOOS/GOARCH…
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/analysis/passes/assign"
	"golang.org/x/tools/go/analysis/passes/atomic"
	"golang.org/x/tools/go/analysis/passes/atomicalign"
	"golang.org/x/tools/go/analysis/passes/bools"
	"golang.org/x/tools/go/analysis/passes/buildtag"
	"golang.org/x/tools/go/analysis/passes/copylock"
	"golang.org/x/tools/go/analysis/passes/errorsas"
	"golang.org/x/tools/go/analysis/passes/ifaceassert"
	"golang.org/x/tools/go/analysis/passes/loopclosure"
	"golang.org/x/tools/go/analysis/passes/lostcancel"
	"golang.org/x/tools/go/analysis/passes/nilfunc"
	"golang.org/x/tools/go/analysis/passes/shift"
	"golang.org/x/tools/go/analysis/passes/stdmethods"
	"golang.org/x/tools/go/analysis/passes/stringintconv"
	"golang.org/x/tools/go/analysis/passes/unmarshal"
	"golang.org/x/tools/go/analysis/passes/unreachable"
	"golang.org/x/tools/go/analysis/passes/unsafeptr"
	"golang.org/x/tools/go/packages"
)

// Those of go vet that may say something else on another system or with another
// word, and atomicalign, for processors of 32 bits.
var analyzers = []*analysis.Analyzer{
	assign.Analyzer, atomic.Analyzer, atomicalign.Analyzer, bools.Analyzer, buildtag.Analyzer, copylock.Analyzer,
	errorsas.Analyzer, ifaceassert.Analyzer, loopclosure.Analyzer, lostcancel.Analyzer, nilfunc.Analyzer, shift.Analyzer,
	stdmethods.Analyzer, stringintconv.Analyzer, unmarshal.Analyzer, unreachable.Analyzer, unsafeptr.Analyzer,
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: systems FOLDER GOOS/GOARCH…")
		os.Exit(2)
	}
	folder, err := filepath.Abs(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	wrong := 0
	for _, target := range os.Args[2:] {
		began := time.Now()
		n, err := check(folder, target)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", target, err)
			os.Exit(2)
		}
		wrong += n
		fmt.Printf("%-14s %d wrong, %.1f s\n", target, n, time.Since(began).Seconds())
	}
	if wrong > 0 {
		os.Exit(1)
	}
}

// check prints what is wrong on one system, and says how much that is.
func check(folder, target string) (wrong int, err error) {
	system, processor, _ := strings.Cut(target, "/")
	loaded, err := packages.Load(&packages.Config{
		Mode:  packages.LoadAllSyntax | packages.NeedModule,
		Dir:   folder,
		Tests: true,
		Env:   append(os.Environ(), "GOOS="+system, "GOARCH="+processor, "CGO_ENABLED=0"),
		ParseFile: func(files *token.FileSet, name string, content []byte) (*ast.File, error) {
			file, err := parser.ParseFile(files, name, content, parser.ParseComments|parser.SkipObjectResolution)
			if file != nil && !strings.HasPrefix(name, folder) {
				dropBodies(file) // of others only what they offer counts
			}
			return file, err
		},
	}, "./...")
	if err != nil {
		return 0, err
	}
	own := slices.DeleteFunc(loaded, func(p *packages.Package) bool {
		return strings.HasSuffix(p.ID, ".test") // a main package that go test makes
	})
	said := map[string]bool{} // of a package, and of it with its tests
	say := func(what string) {
		if !said[what] {
			said[what] = true
			fmt.Printf("%s: %s\n", target, what)
			wrong++
		}
	}
	packages.Visit(own, nil, func(p *packages.Package) {
		p.IllTyped = false // what it is for its dependencies, which lack their bodies
		if !slices.Contains(own, p) {
			return
		}
		for _, e := range p.Errors {
			say(e.Error())
		}
	})
	if len(own) == 0 {
		return 0, fmt.Errorf("no packages in %s", folder)
	}
	if wrong > 0 {
		return wrong, nil
	}
	graph, err := checker.Analyze(analyzers, own, nil)
	if err != nil {
		return 0, err
	}
	for _, action := range graph.Roots {
		if action.Err != nil {
			return 0, fmt.Errorf("%s: %w", action, action.Err)
		}
		for _, d := range action.Diagnostics {
			say(fmt.Sprintf("%v: %s (%s)", action.Package.Fset.Position(d.Pos), d.Message, action.Analyzer.Name))
		}
	}
	return wrong, nil
}

func dropBodies(file *ast.File) {
	for _, declared := range file.Decls {
		if function, ok := declared.(*ast.FuncDecl); ok {
			function.Body = nil
		}
	}
}
