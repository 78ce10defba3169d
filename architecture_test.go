package entrepot_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	mostFields = 12
	mostLines  = 400
)

// moreFields are the structs of proxy that may have more than mostFields, and
// why.
var moreFields = map[string]string{
	"proxy/retention.CachedImage": "its fields are the keys of a JSON object that the admin address answers with",
}

// TestThePagesStepsAreCode holds ARCHITECTURE.md against the code: whatever it
// names is there, and each step of a life names a function.
func TestThePagesStepsAreCode(t *testing.T) {
	all := readCode(t)
	tests := map[string]bool{}
	for _, p := range all {
		maps.Copy(tests, p.tests)
	}
	steps := 0
	for n, text := range pageItems(t) {
		hasFunction := false
		for _, span := range codeSpans.FindAllStringSubmatch(text, -1) {
			name := strings.TrimSuffix(span[1], "()")
			switch {
			case isFile.MatchString(name):
				if _, err := os.Stat(filepath.FromSlash(name)); err != nil {
					t.Errorf("line %d: there is no file %s", n, name)
				}
			case isTest.MatchString(name):
				if !tests[name] {
					t.Errorf("line %d: there is no test %s", n, name)
				}
			case isQualified.MatchString(name):
				packageName, rest, _ := strings.Cut(name, ".")
				isFunction, known := all.named(packageName).declares(rest)
				if !known {
					t.Errorf("line %d: the code has no %s", n, name)
				}
				hasFunction = hasFunction || isFunction
			}
		}
		if isStep.MatchString(text) {
			steps++
			if !hasFunction {
				t.Errorf("line %d: a step names no function: %s", n, text)
			}
		}
	}
	if steps < 30 {
		t.Errorf("only %d steps were found: are they no numbered lists any more?", steps)
	}
}

// TestThePagesDiagramIsTheCode holds the diagram and the list of packages
// against the imports. An arrow that follows from others is not drawn.
func TestThePagesDiagramIsTheCode(t *testing.T) {
	all := readCode(t)
	lines := pageLines(t)
	drawn, listed := map[string][]string{}, map[string][]string{}
	dirOf := map[string]string{}
	for _, line := range lines {
		if m := isNode.FindStringSubmatch(line); m != nil {
			dirOf[m[1]] = m[2]
			drawn[m[2]] = nil
		}
	}
	for n, line := range lines {
		if m := isArrow.FindStringSubmatch(line); m != nil {
			for to := range strings.SplitSeq(m[2], "&") {
				from, to := dirOf[m[1]], dirOf[strings.TrimSpace(to)]
				if from == "" || to == "" {
					t.Errorf("line %d: an arrow between what is no package: %s", n+1, line)
				}
				drawn[from] = append(drawn[from], to)
			}
		}
		if m := isRow.FindStringSubmatch(line); m != nil {
			listed[m[1]] = nil
			for _, span := range codeSpans.FindAllStringSubmatch(m[2], -1) {
				listed[m[1]] = append(listed[m[1]], all.named(span[1]).dir)
			}
		}
	}
	for dir, p := range all {
		imported := slices.Sorted(maps.Keys(p.imports))
		if got := slices.Sorted(slices.Values(listed[dir])); !slices.Equal(got, imported) {
			t.Errorf("the list says that %s imports\n\t%v, and the code\n\t%v", dir, got, imported)
		}
		direct := all.direct(dir)
		if got := slices.Sorted(slices.Values(drawn[dir])); !slices.Equal(got, direct) {
			t.Errorf("the diagram has arrows from %s to\n\t%v, and the code, but for those that follow from others,\n\t%v", dir, got, direct)
		}
	}
	for _, page := range []map[string][]string{drawn, listed} {
		for _, dir := range slices.Sorted(maps.Keys(page)) {
			if all[dir] == nil {
				t.Errorf("the page has %q, which is no package", dir)
			}
		}
		if len(page) < len(all) {
			t.Errorf("the page has %d packages of %d", len(page), len(all))
		}
	}
}

// A struct with more fields does more than one thing.
func TestNoStructHoldsEverything(t *testing.T) {
	large := map[string]bool{}
	for dir, p := range readCode(t).below("proxy") {
		for _, file := range p.files {
			ast.Inspect(file, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				fields, isStruct := spec.Type.(*ast.StructType)
				if !isStruct {
					return true
				}
				name := dir + "." + spec.Name.Name
				if n := countFields(fields); n > mostFields {
					large[name] = true
					if moreFields[name] == "" {
						t.Errorf("%s has %d fields", name, n)
					}
				}
				return true
			})
		}
	}
	for name := range moreFields {
		if !large[name] {
			t.Errorf("%s is an exception, and needs to be none", name)
		}
	}
}

func TestNoFileIsTooLong(t *testing.T) {
	for dir, p := range readCode(t).below("proxy") {
		for name, lines := range p.lines {
			if lines > mostLines {
				t.Errorf("%s/%s has %d lines", dir, name, lines)
			}
		}
	}
}

// Whoever assembles starts what runs, and ends it: a constructor that starts
// something would leave it to nobody.
func TestConstructorsStartNothing(t *testing.T) {
	seen := 0
	for dir, p := range readCode(t).below("proxy") {
		for _, file := range p.files {
			for _, decl := range file.Decls {
				fn, ok := decl.(*ast.FuncDecl)
				if !ok || fn.Body == nil || !isConstructor.MatchString(fn.Name.Name) {
					continue
				}
				seen++
				ast.Inspect(fn.Body, func(n ast.Node) bool {
					switch n := n.(type) {
					case *ast.GoStmt:
						t.Errorf("%s: %s starts a goroutine", dir, fn.Name.Name)
					case *ast.CallExpr:
						called, ok := n.Fun.(*ast.SelectorExpr)
						if ok && slices.Contains([]string{"Go", "DoChan", "AfterFunc", "Start"}, called.Sel.Name) {
							t.Errorf("%s: %s calls %s", dir, fn.Name.Name, called.Sel.Name)
						}
					}
					return true
				})
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d constructors were found", seen)
	}
}

// A package says what it is for, and the tests that guard what it promises are
// there. Where they stand in another package it says which: "(TestX, in proxy)".
func TestPackageCommentsNameTestsThatExist(t *testing.T) {
	all := readCode(t)
	for dir, p := range all {
		if p.comment == "" {
			t.Errorf("%s has no package comment", dir)
		}
		text := strings.Join(strings.Fields(p.comment), " ")
		for _, m := range namedTest.FindAllStringSubmatch(text, -1) {
			in := p
			if m[2] != "" {
				in = all[m[2]]
			}
			if in == nil || !in.tests[m[1]] {
				t.Errorf("%s names the test %s, which is not there", dir, m[0])
			}
		}
	}
}

var (
	codeSpans     = regexp.MustCompile("`([^`]+)`")
	isQualified   = regexp.MustCompile(`^[a-z]\w*\.\w+(\.\w+)?$`)
	isTest        = regexp.MustCompile(`^(Test|Fuzz)[A-Z]\w*$`)
	isFile        = regexp.MustCompile(`^[\w./-]+\.(go|md|toml|yaml|yml)$|^[\w.-]+(/[\w.-]+)+$`)
	isStep        = regexp.MustCompile(`^\d+\. `)
	isNode        = regexp.MustCompile(`^\s*(\w+)\["([^"<]+)`)
	isArrow       = regexp.MustCompile(`^\s*(\w+) --> ([\w &]+)$`)
	isRow         = regexp.MustCompile("^\\| `([^`]+)` \\|.*\\|([^|]*)\\|$")
	isConstructor = regexp.MustCompile(`^(New|new)([A-Z]|$)`)
	namedTest     = regexp.MustCompile(`\b(Test[A-Z]\w*)(?:, in ([a-z][\w/]*))?`)
)

// Each line of the threat model is held by tests that are there.
func TestTheThreatModelNamesTestsThatExist(t *testing.T) {
	tests := map[string]bool{}
	for _, p := range readCode(t) {
		maps.Copy(tests, p.tests)
	}
	rows := 0
	for n, line := range linesOf(t, "SECURITY.md") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| who |") {
			continue
		}
		rows++
		columns := strings.Split(strings.Trim(line, "|"), "|")
		named := codeSpans.FindAllStringSubmatch(columns[len(columns)-1], -1)
		if len(named) == 0 {
			t.Errorf("line %d: no test holds this", n+1)
		}
		for _, name := range named {
			if !tests[name[1]] {
				t.Errorf("line %d: there is no test %s", n+1, name[1])
			}
		}
	}
	if rows < 10 {
		t.Errorf("there are %d rows", rows)
	}
}

func pageLines(t *testing.T) []string {
	t.Helper()
	return linesOf(t, "ARCHITECTURE.md")
}

func linesOf(t *testing.T, file string) []string {
	t.Helper()
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(page), "\n")
}

// pageItems are the lines outside of fences, by their numbers. A line that goes
// on with the item of a list stands with its first one.
func pageItems(t *testing.T) map[int]string {
	t.Helper()
	items := map[int]string{}
	inside, first := false, 0
	for i, line := range pageLines(t) {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = !inside
		case inside:
		case strings.HasPrefix(line, "  "):
			items[first] += " " + strings.TrimSpace(line)
		default:
			first = i + 1
			items[first] = line
		}
	}
	return items
}

// code is one package of the main module.
type code struct {
	dir, name string
	comment   string
	files     map[string]*ast.File // that are no tests
	lines     map[string]int       // of these
	imports   map[string]bool      // of ours, by these
	tests     map[string]bool      // functions
}

// packages are by their folders.
type packages map[string]*code

// readCode reads all code of the main module, once.
func readCode(t *testing.T) packages {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var parsed = sync.OnceValues(func() (packages, error) {
	all := packages{}
	fset := token.NewFileSet()
	err := walkFiles(func(dir, name string) error {
		file, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		p := all[dir]
		if p == nil {
			p = &code{dir: dir, files: map[string]*ast.File{}, lines: map[string]int{}, imports: map[string]bool{}, tests: map[string]bool{}}
			all[dir] = p
		}
		if strings.HasSuffix(name, "_test.go") {
			for _, decl := range file.Decls {
				if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && isTest.MatchString(fn.Name.Name) {
					p.tests[fn.Name.Name] = true
				}
			}
			return nil
		}
		p.name, p.files[name], p.lines[name] = file.Name.Name, file, fset.File(file.FileStart).LineCount()
		p.comment += file.Doc.Text()
		for _, spec := range file.Imports {
			if ours, ok := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module+"/"); ok {
				p.imports[ours] = true
			}
		}
		return nil
	})
	return all, err
})

// named is the package of that name, an empty one where there is none.
func (all packages) named(name string) *code {
	for _, p := range all {
		if p.name == name {
			return p
		}
	}
	return &code{dir: "no package " + name}
}

// below are the packages in a folder and below it, but for those that are for
// tests.
func (all packages) below(folder string) packages {
	some := packages{}
	for dir, p := range all {
		if (dir == folder || strings.HasPrefix(dir, folder+"/")) && !strings.HasSuffix(path.Base(dir), "test") {
			some[dir] = p
		}
	}
	return some
}

// direct are the imports of a package that do not follow from another one.
func (all packages) direct(dir string) (direct []string) {
	for to := range all[dir].imports {
		follows := false
		for over := range all[dir].imports {
			follows = follows || over != to && all.reaches(over, to)
		}
		if !follows {
			direct = append(direct, to)
		}
	}
	return slices.Sorted(slices.Values(direct))
}

func (all packages) reaches(from, to string) bool {
	return all[from].imports[to] || slices.ContainsFunc(slices.Collect(maps.Keys(all[from].imports)), func(next string) bool { return all.reaches(next, to) })
}

// declares says whether the package has that declaration, "Name" or
// "Type.Name", and whether it is a function or a method.
func (p *code) declares(what string) (isFunction, known bool) {
	outer, inner, isMember := strings.Cut(what, ".")
	for _, file := range p.files {
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if receiver := receiverOf(decl); !isMember && receiver == "" && decl.Name.Name == outer || isMember && receiver == outer && decl.Name.Name == inner {
					return true, true
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					isMethod, has := specDeclares(spec, outer, inner)
					if has {
						return isMethod, true
					}
				}
			}
		}
	}
	return false, false
}

func specDeclares(spec ast.Spec, outer, inner string) (isMethod, known bool) {
	switch spec := spec.(type) {
	case *ast.ValueSpec:
		return false, inner == "" && slices.ContainsFunc(spec.Names, func(n *ast.Ident) bool { return n.Name == outer })
	case *ast.TypeSpec:
		if spec.Name.Name != outer || inner == "" {
			return false, spec.Name.Name == outer
		}
		switch of := spec.Type.(type) {
		case *ast.InterfaceType:
			has := hasMember(of.Methods, inner)
			return has, has
		case *ast.StructType:
			return false, hasMember(of.Fields, inner)
		}
	}
	return false, false
}

func hasMember(list *ast.FieldList, name string) bool {
	return slices.ContainsFunc(list.List, func(f *ast.Field) bool {
		return slices.ContainsFunc(f.Names, func(n *ast.Ident) bool { return n.Name == name })
	})
}

// receiverOf is the name of the type that a method belongs to.
func receiverOf(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	of := fn.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	if generic, ok := of.(*ast.IndexExpr); ok {
		of = generic.X
	}
	if name, ok := of.(*ast.Ident); ok {
		return name.Name
	}
	return ""
}

// countFields counts names; what is embedded counts as one.
func countFields(s *ast.StructType) (n int) {
	for _, f := range s.Fields.List {
		n += max(1, len(f.Names))
	}
	return n
}
