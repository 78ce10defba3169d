package hosts

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// buildkit configures buildkitd.toml. Builders made by "docker buildx create"
// copy a file in the user's folder, unless another file is given.
func buildkit(name string) Runtime {
	r := Runtime{
		Name:  name,
		Place: func(m Machine) string { return m.Own("/etc/buildkit", "buildkit") },
		Files: func(s Setting) (Layout, error) { return buildkitFiles(s, name, "buildkitd.toml") },
		Comes: func(s Setting, r Registry) error { return buildkitComes(s, r, "buildkitd.toml") },
		Down: func(Version) string {
			return "nothing where the connection is refused, 30 s a request where its machine is gone, for as long as it hangs"
		},
		Restart: "buildkitd, such as systemctl restart buildkit",
	}
	if name == "buildx" {
		const file = "buildkitd.default.toml"
		r.Elsewhere = true // a builder is a container with its own network
		r.Place = func(m Machine) string { return filepath.Join(m.Home, ".docker", "buildx") }
		r.Files = func(s Setting) (Layout, error) { return buildkitFiles(s, name, file) }
		r.Comes = func(s Setting, r Registry) error { return buildkitComes(s, r, file) }
		r.Restart = `nothing, but a builder uses the file that it was created with, so make it again: docker buildx rm NAME, and docker buildx create --name NAME --bootstrap (a builder that is created with --buildkitd-config reads only that file)`
	}
	return r
}

func buildkitFiles(s Setting, name, file string) (Layout, error) {
	tables, notes := s.Mirror.buildkitTables()
	edit := func(theirs []byte) (Change, error) {
		read, err := readTOML(theirs)
		if err != nil {
			return Change{}, err
		}
		merged, err := s.Mirror.besideTheirs(read, tables)
		if err != nil {
			return Change{}, err
		}
		content, err := setInTables(name, theirs, merged)
		if err != nil {
			return Change{}, Blocked{Problem: err.Error(), Fix: "write each registry as a separate table, or add this by hand", Lines: textOfTables(merged)}
		}
		return Change{Content: content, Undo: Undo{Kind: undoMarked}}, nil
	}
	return Layout{Files: []File{{Path: s.below(file), Edit: edit}}, Notes: notes}, nil
}

// buildkitTables returns the tables that list the mirrors of each registry. A
// mirror is a host and a path without a scheme. Plain HTTP and certificates are
// configured in the host's table. If a registry can't be named by a path, the
// ?ns= that BuildKit adds names it.
//
// BuildKit asks the registry itself at its name. A registry at another host
// becomes a second mirror, where a path is that of repositories and not of the
// API.
func (m Mirror) buildkitTables() (tables []tableEdit, notes []string) {
	byHost := map[string]*tableEdit{}
	var hosts []string
	table := func(host string) *tableEdit {
		t, ok := byHost[host]
		if !ok {
			t = &tableEdit{path: []string{"registry", host}}
			byHost[host] = t
			hosts = append(hosts, host)
		}
		return t
	}
	for _, r := range m.Registries {
		table(r.Name)
	}
	for _, r := range m.Registries {
		t := byHost[r.Name]
		var mirrors []string
		for _, address := range m.Addresses {
			mirrors = append(mirrors, mirrorPath(address.Host, r.Prefix))
		}
		own := r.Server.Host == r.Name || r.Name == dockerHub && r.Server.Host == dockerHubServer
		switch {
		case r.Server.Base != "":
			note := r.Name + " itself is left out: its API is below " + r.Server.Base + ", which no mirror here can say"
			t.remark = "# " + note + ".\n"
			notes = append(notes, note)
		case !own || r.Server.Place.Prefix != "":
			mirrors = append(mirrors, mirrorPath(r.Server.Host, r.Server.Place.Prefix))
		}
		t.keys = append([]keyEdit{{"mirrors", anySlice(mirrors), quoteAll(mirrors)}}, t.keys...)
		if r.Server.Base != "" {
			continue
		}
		if !own {
			t = table(r.Server.Host)
		}
		t.reachedBy(r.Server.Host, r.Server.Scheme, r.Server.CAFile, r.Server.Insecure)
	}
	for _, address := range m.Addresses {
		ca := ""
		if address.Scheme == "https" {
			ca = m.CAFile
		}
		table(address.Host).reachedBy(address.Host, address.Scheme, ca, false)
	}
	slices.Sort(hosts[len(m.Registries):])
	for _, host := range hosts {
		if t := byHost[host]; len(t.keys) > 0 {
			tables = append(tables, *t)
		}
	}
	return tables, notes
}

func mirrorPath(host, prefix string) string {
	if prefix == "" {
		return host
	}
	return host + "/" + prefix
}

// reachedBy sets how a host is reached, where it differs from BuildKit's
// default: HTTPS, or plain HTTP on loopback.
func (t *tableEdit) reachedBy(host, scheme, ca string, insecure bool) {
	set := func(k keyEdit) {
		if !slices.ContainsFunc(t.keys, func(there keyEdit) bool { return there.key == k.key }) {
			t.keys = append(t.keys, k)
		}
	}
	if plain := scheme == "http"; plain || IsLoopback(host) {
		set(keyEdit{"http", plain, strconv.FormatBool(plain)})
	}
	if insecure {
		set(keyEdit{"insecure", true, "true"})
	}
	if ca != "" {
		set(keyEdit{"ca", []any{ca}, quoteAll([]string{ca})})
	}
}

// besideTheirs merges the tables with the existing settings. entrepot becomes
// the first mirror, and its certificates are added. Existing settings for how a
// host is reached stay. If entrepot can't be reached that way, besideTheirs
// returns Blocked.
func (m Mirror) besideTheirs(read map[string]any, tables []tableEdit) ([]tableEdit, error) {
	var merged []tableEdit
	for _, table := range tables {
		host := table.path[1]
		there := tableAt(read, table.path...)
		var keys []keyEdit
		for _, key := range table.keys {
			value, set := there[key.key]
			list, isList := value.([]any)
			switch {
			case !set:
				keys = append(keys, key)
			case key.key == "mirrors" && isList, key.key == "ca" && isList:
				if both := withOurs(key, list, m); both != nil {
					keys = append(keys, keyEdit{key.key, both, quoteAll(textsOf(both))})
				}
			case key.key == "mirrors", key.key == "ca":
				return nil, Blocked{Problem: table.header() + key.key + " is not a list", Fix: "correct it first"}
			case value != key.value && slices.ContainsFunc(m.Addresses, func(a *url.URL) bool { return a.Host == host }):
				return nil, Blocked{
					Problem: fmt.Sprintf("it has %s = %v for %s, which is entrepot's address with %s", key.key, value, host, key.written),
					Fix:     "give another address with --address, or change that line",
				}
			}
		}
		if there != nil {
			table.remark = ""
		}
		table.keys = keys
		merged = append(merged, table)
	}
	return merged, nil
}

// withOurs returns an existing list with entrepot's items added, or nil if
// nothing is missing. Of the mirrors, entrepot comes first and the registry
// itself last.
func withOurs(key keyEdit, theirs []any, m Mirror) []any {
	var before, after []any
	for _, item := range key.value.([]any) { //nolint:forcetypeassert // buildkitTables makes lists only
		switch {
		case slices.Contains(theirs, item):
		case key.key == "mirrors" && m.isLocation(item):
			before = append(before, item)
		default:
			after = append(after, item)
		}
	}
	if len(before)+len(after) == 0 {
		return nil
	}
	return slices.Concat(before, theirs, after)
}

// isLocation reports whether a host with a path is one of entrepot's.
func (m Mirror) isLocation(item any) bool {
	at, _ := item.(string)
	host, _, _ := strings.Cut(at, "/")
	return slices.ContainsFunc(m.Addresses, func(a *url.URL) bool { return a.Host == host })
}

func textsOf(list []any) []string {
	var texts []string
	for _, item := range list {
		text, _ := item.(string)
		texts = append(texts, text)
	}
	return texts
}

// buildkitComes checks the first mirror, and how its host is reached.
func buildkitComes(s Setting, r Registry, file string) error {
	path := s.below(file)
	content, err := readFile(path)
	if err != nil {
		return err
	}
	if content == nil {
		return errors.New(path + " does not exist")
	}
	read, err := readTOML(content)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	mirrors, _ := tableAt(read, "registry", r.Name)["mirrors"].([]any)
	if len(mirrors) == 0 {
		return errors.New(path + " lists no mirror for it")
	}
	for _, address := range s.Mirror.Addresses {
		if mirrors[0] != mirrorPath(address.Host, r.Prefix) {
			continue
		}
		plain, isSet := tableAt(read, "registry", address.Host)["http"].(bool)
		if !isSet {
			plain = IsLoopback(address.Host)
		}
		if plain != (address.Scheme == "http") {
			return fmt.Errorf("%s uses another scheme for %s than %s", path, address.Host, address)
		}
		return nil
	}
	return fmt.Errorf("%s lists %v first", path, mirrors[0])
}
