// Package entrepot_test holds what is true of the project as a whole.
package entrepot_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/entrepot/entrepot"

// arrows says which of our packages each package may import, and what else it
// may not. A package's own children and parents are packages like others.
var arrows = map[string]struct {
	to    []string
	never []string
}{
	"config":                     {},
	"limits":                     {never: []string{"net/http"}},
	"limits/panics":              {never: []string{"net", "net/http"}},
	"upstream/manifest":          {never: []string{"net", "net/http"}},
	"cache":                      {never: []string{"net/http"}},
	"cache/disk":                 {to: []string{"limits/panics", "cache", "cache/disk/files"}, never: []string{"net/http"}},
	"cache/disk/files":           {never: []string{"net/http"}},
	"cache/disk/files/filestest": {to: []string{"cache/disk/files"}},
	"cache/memory":               {to: []string{"cache"}, never: []string{"net/http"}},
	"cache/cachetest":            {to: []string{"cache"}},
	"cache/cachetest/content":    {never: []string{"net", "net/http"}},
	"upstream":                   {to: []string{"limits/panics", "upstream/manifest"}},
	"upstream/keychain":          {to: []string{"limits/panics", "upstream"}, never: []string{"net/http"}},
	"upstream/upstreamtest":      {to: []string{"cache/cachetest/content", "upstream"}},
	"proxy/referrers":            {to: []string{"upstream/manifest"}, never: []string{"net", "net/http"}},
	"proxy/flight":               {to: []string{"limits/panics", "cache", "upstream"}, never: []string{"net/http"}},
	"proxy/background":           {to: []string{"limits/panics"}, never: []string{"net", "net/http"}},
	"proxy/metadata":             {to: []string{"proxy/referrers", "cache"}, never: []string{"net/http"}},
	"proxy/bundle":               {to: []string{"proxy/referrers"}, never: []string{"net", "net/http"}},
	"proxy/store":                {to: []string{"proxy/metadata", "proxy/referrers", "cache"}, never: []string{"net/http"}},
	"proxy/retention":            {to: []string{"proxy/background", "proxy/metadata", "proxy/store", "proxy/referrers", "cache"}, never: []string{"net/http"}},
	"proxy/pull":                 {to: []string{"limits/panics", "proxy/background", "proxy/flight", "proxy/metadata", "proxy/store", "proxy/referrers", "cache", "cache/memory", "upstream"}, never: []string{"net/http"}},
	"proxy/warm":                 {to: []string{"limits/panics", "proxy/background", "proxy/metadata", "proxy/pull", "proxy/retention", "proxy/store", "cache", "cache/memory", "upstream"}, never: []string{"net/http"}},
	"proxy/transfer":             {to: []string{"proxy/bundle", "proxy/metadata", "proxy/pull", "proxy/retention", "proxy/store", "proxy/referrers", "cache"}, never: []string{"net/http"}},
	"proxy/mirror":               {to: []string{"proxy/background", "proxy/flight", "proxy/metadata", "proxy/pull", "proxy/retention", "proxy/store", "proxy/transfer", "proxy/warm", "cache"}, never: []string{"net/http"}},
	"proxy/mirror/mirrortest":    {to: []string{"cache/cachetest/content", "proxy/metadata", "proxy/mirror", "proxy/pull", "proxy/store", "proxy/referrers", "cache", "cache/memory", "upstream"}},
	"proxy/admission":            {},
	"proxy/admin":                {to: []string{"proxy/admission", "proxy/bundle", "proxy/metadata", "proxy/retention", "proxy/transfer", "proxy/warm", "upstream"}},
	"proxy":                      {to: []string{"limits/panics", "proxy/admission", "proxy/pull", "proxy/referrers", "upstream"}},
	"cmd/entrepot/hosts":         {to: []string{"config"}, never: []string{"net/http"}},
	"cmd/entrepot/imagelist":     {never: []string{"net", "net/http"}},
	"cmd/entrepot":               {to: []string{"limits/panics", "cmd/entrepot/hosts", "cmd/entrepot/imagelist", "config", "limits", "proxy", "proxy/admin", "proxy/admission", "proxy/bundle", "proxy/metadata", "proxy/mirror", "proxy/pull", "proxy/retention", "proxy/store", "proxy/transfer", "proxy/warm", "cache", "cache/disk", "cache/memory", "upstream", "upstream/keychain"}},
}

// TestArrows holds the imports of the code that is not tests against the table.
// ARCHITECTURE.md draws them.
func TestArrows(t *testing.T) {
	seen := map[string]map[string]bool{}
	eachFile(t, func(dir, name string) {
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		if seen[dir] == nil {
			seen[dir] = map[string]bool{}
		}
		allowed, known := arrows[dir]
		if !known {
			t.Errorf("%s is a package that the table does not have", dir)
			return
		}
		for _, imported := range imports(t, dir, name) {
			ours, isOurs := strings.CutPrefix(imported, module+"/")
			seen[dir][ours] = true
			if isOurs && !slices.Contains(allowed.to, ours) {
				t.Errorf("%s/%s imports %s", dir, name, ours)
			}
			if slices.Contains(allowed.never, imported) {
				t.Errorf("%s/%s imports %s", dir, name, imported)
			}
		}
	})
	for dir, allowed := range arrows {
		if seen[dir] == nil {
			t.Errorf("%s is in the table and has no code", dir)
		}
		for _, to := range allowed.to {
			if !seen[dir][to] {
				t.Errorf("%s may import %s, and does not", dir, to)
			}
		}
	}
}

// Only one file knows every package.
func TestOnlyWireKnowsEveryPackage(t *testing.T) {
	eachFile(t, func(dir, name string) {
		if dir != "cmd/entrepot" || name == "wire.go" || strings.HasSuffix(name, "_test.go") {
			return
		}
		for _, imported := range imports(t, dir, name) {
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok && (ours == "upstream" || ours == "cache/memory") {
				t.Errorf("%s/%s imports %s: that is wire.go's to know", dir, name, ours)
			}
		}
	})
}

func TestNoPackageIsNamedForNothing(t *testing.T) {
	eachFile(t, func(dir, _ string) {
		if slices.Contains([]string{"util", "utils", "common", "types", "helpers", "internal"}, path.Base(dir)) {
			t.Errorf("%s says nothing about what is in it", dir)
		}
	})
}

// eachFile calls fn for each Go file of the main module.
func eachFile(t *testing.T, fn func(dir, name string)) {
	t.Helper()
	err := walkFiles(func(dir, name string) error {
		fn(dir, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func walkFiles(fn func(dir, name string) error) error {
	return filepath.WalkDir(".", func(p string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (p == "bench" || p == filepath.Join("deploy", "e2e") || strings.HasPrefix(entry.Name(), ".") && p != "."):
			return fs.SkipDir
		case !entry.IsDir() && strings.HasSuffix(p, ".go") && filepath.Dir(p) != ".":
			return fn(filepath.ToSlash(filepath.Dir(p)), entry.Name())
		}
		return nil
	})
}

func imports(t *testing.T, dir, name string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, imported)
	}
	return all
}
