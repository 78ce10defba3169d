package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	rowSetting   = "ENTREPOT_E2E_ROW"       // the runtime and the story of a machine
	rowCellsFile = "ENTREPOT_E2E_ROW_CELLS" // where it says what it found
)

// TestRowsOfREADMEDoWhatTheySay types each row of README's table of runtimes on a
// machine of its own, and pulls with the runtime.
func TestRowsOfREADMEDoWhatTheySay(t *testing.T) {
	s := readSuite(t)
	found := map[string]map[string]string{}
	toldOf, wanted := 0, 0
	var mu sync.Mutex
	tell := func(r rowRuntime, about story) {
		t.Run(r.name+"/"+about.name, func(t *testing.T) {
			cells := s.onItsOwnMachine(t, r, about)
			mu.Lock()
			defer mu.Unlock()
			toldOf++
			if found[r.name] == nil {
				found[r.name] = map[string]string{}
			}
			for column, text := range cells {
				found[r.name][column] = text
			}
		})
	}
	var all sync.WaitGroup
	// Those that wait are many at once, and leave the processors to the others.
	for _, queue := range []struct {
		waits  bool
		beside int
	}{{true, 12}, {false, 2}} {
		places := make(chan struct{}, queue.beside)
		for _, r := range rowRuntimes {
			for _, about := range r.all() {
				if about.waits != queue.waits {
					continue
				}
				wanted++
				all.Go(func() {
					places <- struct{}{}
					defer func() { <-places }()
					tell(r, about)
				})
			}
		}
	}
	all.Wait()
	if toldOf < wanted {
		t.Log("not every story was told: the page of results stays as it was")
		return
	}
	results := &table{}
	for _, r := range rowRuntimes {
		cells := []string{r.name, s.version(t, r.tool)}
		for _, column := range columns {
			cell, ok := found[r.name][column]
			if !ok {
				t.Errorf("%s: nothing is known of %q", r.name, column)
			}
			cells = append(cells, cell)
		}
		results.lines = append(results.lines, cells)
	}
	text := results.sorted(slices.Concat([]string{"runtime", "version"}, columns)...)
	t.Log("\n" + text)
	put(t, "rows", rowsHead+text)
}

const rowsHead = `## README's rows, as typed

Each row of README's table is typed as it stands there, on a machine of its own: namespaces for mounts, the network and processes, so
that the paths and the registries' names are the true ones, and each registry is served there under its name. Then the runtime pulls,
and what entrepot counts is held against what the registries were asked. "Comes here" means that entrepot was asked and no registry
was, but by entrepot; "straight", that a pull succeeded with the registry itself.

As typed is over the configuration that the runtime comes with. What a user has is other mirrors, for a registry that entrepot does
not know too, registries without TLS or with a certificate of the office's, comments, files of another mode and group: it has to mean
the same beside ours, with entrepot up and down. The first of two addresses refuses. Of a machine that is gone every packet is lost;
entrepot hangs because it is stopped (SIGSTOP). The times of both are of a whole pull of a new manifest whose layers are there, and held
against what --check says that a request costs. Once removed, every file below the runtime's folders has to be as before, with its mode
and owner. Where a cell can't be, it has what the program says of it.

`

// onItsOwnMachine runs this test's own program in namespaces of its own.
func (s *suite) onItsOwnMachine(t *testing.T, r rowRuntime, about story) map[string]string {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := s.folder(t)
	file := filepath.Join(dir, "cells.json")
	env := append(os.Environ(), "ENTREPOT_E2E_WORK="+dir, rowSetting+"="+r.name+"/"+about.name, rowCellsFile+"="+file)
	stdout, stderr, err := try(t.Context(), "", env, "/usr/bin/unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
		program, "-test.run", "^TestRowInside$", "-test.v", "-test.timeout", "10m")
	t.Logf("%s%s", stdout, stderr)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var cells map[string]string
	if err := json.Unmarshal(content, &cells); err != nil {
		t.Fatal(err)
	}
	return cells
}

// TestRowInside is what runs on such a machine; without one there is nothing to
// tell.
func TestRowInside(t *testing.T) {
	which := os.Getenv(rowSetting)
	if which == "" {
		return
	}
	if err := tellInside(t, which); err != nil {
		t.Fatal(err)
	}
}

func tellInside(t *testing.T, which string) error {
	for _, r := range rowRuntimes {
		for _, about := range r.all() {
			if which != r.name+"/"+about.name {
				continue
			}
			var programs []string
			for _, name := range r.tools {
				programs = append(programs, readSuite(t).tool(t, name).bin())
			}
			s := &telling{newMachine(t, programs...), r, map[string]string{}}
			about.tell(s)
			content, err := json.Marshal(s.cells)
			if err != nil {
				return err
			}
			return os.WriteFile(os.Getenv(rowCellsFile), content, 0o644)
		}
	}
	return fmt.Errorf("there is no story %q of %s", which, strings.Join(columns, ", "))
}
