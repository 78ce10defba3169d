package hosts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// errNotAsked means that a runtime never asks for a registry through a mirror.
var errNotAsked = errors.New("this runtime never asks for it through a mirror")

// errCantSay means that a runtime has no command that checks its files.
var errCantSay = errors.New("can't say whether its files are right")

// Check reports for each registry whether pulls come here. It also prints the
// result of the runtime's own parser, what a pull costs when entrepot is down,
// and what to restart after a change. It returns false if pulls of a registry
// do not come here.
func (r Runtime) Check(ctx context.Context, s Setting, w io.Writer) (bool, error) {
	right := true
	say := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	if err := s.Mirror.checkFiles(); err != nil {
		say("certificates: %v", err)
		right = false
	}
	for _, registry := range s.Mirror.Registries {
		switch err := r.Comes(s, registry); {
		case err == nil:
			say("%s: comes here", registry.Name)
		case errors.Is(err, errNotAsked), errors.Is(err, errElsewhere):
			say("%s: %v", registry.Name, err)
		default:
			say("%s: DOES NOT COME HERE: %v", registry.Name, err)
			right = false
		}
	}
	if r.Ask != nil {
		verdict, err := r.Ask(ctx, s)
		switch {
		case errors.Is(err, errCantSay):
			say("%v", err)
		case errors.Is(err, ErrNotInstalled):
			say("%s is not installed here, so its own check was not run", r.Name)
		case err != nil:
			return false, err
		case verdict.Asked == "":
		case verdict.Said == "":
			say("%s: right", verdict.Asked)
		default:
			say("%s: %s", verdict.Asked, strings.ReplaceAll(verdict.Said, "\n", "\n  "))
			right = false
		}
	}
	say("with entrepot down a pull costs: %s", r.Down(s.Version))
	say("to restart: %s", s.Typed(r.Restart))
	return right, nil
}

// comesByHosts checks hosts.toml files in the way that their library does. The
// first folder that exists counts, and in it the first host that may pull and
// resolve. Only the older library reads hosts that are written as dotted keys
// instead of tables, and it ignores tables with "]" in their name.
func comesByHosts(roots []string, m Mirror, r Registry, dotted bool) error {
	for _, root := range roots {
		for _, form := range slices.Compact([]string{hostFolder(r.Name), r.Name, everyRegistry}) {
			folder := filepath.Join(root, form)
			if _, err := os.Stat(folder); err == nil {
				return comesByFile(filepath.Join(folder, "hosts.toml"), m, dotted)
			}
		}
	}
	return fmt.Errorf("it has no folder in %s", strings.Join(roots, " or "))
}

func comesByFile(path string, m Mirror, dotted bool) error {
	content, err := readFile(path)
	if err != nil {
		return err
	}
	if len(content) == 0 {
		return fmt.Errorf("%s does not exist", path)
	}
	read, err := readTOML(content)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, e := range expressions(content) {
		if dotted && e.opens && strings.Contains(strings.Join(e.path, ""), "]") {
			return fmt.Errorf("%s has \"]\" in the name of a table, and containerd before 2.0 ignores such a file", path)
		}
		if !e.opens && !dotted || len(e.path) < 2 || e.path[0] != "host" {
			continue
		}
		capabilities, named := tableAt(read, "host", e.path[1])["capabilities"]
		if named && (!listHas(capabilities, "pull") || !listHas(capabilities, "resolve")) {
			continue
		}
		if m.isAddress(e.path[1]) {
			return nil
		}
		return fmt.Errorf("%s lists %s first", path, e.path[1])
	}
	return fmt.Errorf("%s lists no mirror", path)
}

// isAddress reports whether a URL is one of entrepot's addresses.
func (m Mirror) isAddress(text string) bool {
	u, err := url.Parse(text)
	return err == nil && slices.ContainsFunc(m.Addresses, func(a *url.URL) bool { return a.Scheme == u.Scheme && a.Host == u.Host })
}
