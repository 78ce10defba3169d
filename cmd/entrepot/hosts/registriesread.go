package hosts

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// conf is one registries.conf or drop-in.
type conf struct {
	path    string
	user    bool // below a user's folder
	own     bool // the current user may change it
	dropIn  bool
	entries []map[string]any
}

// confList is the files in the order in which they are read. The last one
// counts.
type confList []conf

type registryConfs struct{ all confList }

// confFolder is a folder with a registries.conf and its drop-ins.
type confFolder struct {
	path      string
	user, own bool
}

// confFolders returns the folders that are read, those that count most first.
// Podman 6 uses XDG's folder, earlier versions use .config in the home folder,
// and both do so for root too.
func (s Setting) confFolders() []confFolder {
	folder := filepath.Dir(s.Dir)
	if s.DirGiven {
		return []confFolder{{path: folder, own: true}}
	}
	m := s.Machine
	users := []string{filepath.Join(m.Config, "containers")}
	if home := filepath.Join(m.Home, ".config", "containers"); home != users[0] {
		users = append(users, home)
	}
	var all []confFolder
	for _, user := range users {
		all = append(all, confFolder{user, true, true})
	}
	return append(all,
		confFolder{path: m.System("/etc/containers"), own: !m.Rootless},
		confFolder{path: m.System("/usr/share/containers")}, // from the package
	)
}

// dropInFolders returns the folders for entrepot's drop-in, so that every
// version reads it. With a registries.conf of the user, the system's drop-ins
// are not read.
func (s Setting) dropInFolders() []string {
	folders := []string{s.Dir}
	if s.blank || s.DirGiven {
		return folders
	}
	for _, f := range s.confFolders() {
		folder := filepath.Join(f.path, "registries.conf.d")
		if !f.user || folder == s.Dir {
			continue
		}
		_, err := os.Stat(filepath.Join(f.path, "registries.conf"))
		if s.Machine.Rootless || err == nil {
			folders = append(folders, folder)
		}
	}
	return folders
}

// readConfs reads the files without entrepot's settings.
func (s Setting) readConfs() (registryConfs, error) {
	var all registryConfs
	if s.blank {
		return all, nil
	}
	for _, f := range s.confFolders() {
		paths := []string{filepath.Join(f.path, "registries.conf")}
		// Podman 6 also has folders for root and for other users.
		kinds := []string{"registries.conf.d"}
		if !f.user && s.Machine.Rootless {
			kinds = append(kinds, "registries.rootless.conf.d")
		} else if !f.user {
			kinds = append(kinds, "registries.rootful.conf.d")
		}
		for _, kind := range kinds {
			found, err := filepath.Glob(filepath.Join(f.path, kind, "*.conf"))
			if err != nil {
				return all, err
			}
			paths = append(paths, found...)
		}
		for i, path := range paths {
			content, err := s.confContent(path)
			if errors.Is(err, os.ErrPermission) && !f.own {
				continue
			}
			if err != nil {
				return all, err
			}
			if content == nil {
				continue
			}
			entries, err := registryEntries(content, s.Mirror)
			if err != nil {
				var blocked Blocked
				if errors.As(err, &blocked) {
					blocked.Path = path
					return all, blocked
				}
				return all, err
			}
			all.all = append(all.all, conf{path: path, user: f.user, own: f.own, dropIn: i > 0, entries: entries})
		}
	}
	return all, nil
}

func (s Setting) confContent(path string) ([]byte, error) {
	if s.asIs {
		return readFile(path)
	}
	return s.Theirs(path)
}

// registryEntries returns a file's registries, without later ones that have the
// same prefix. It sets the defaults that every version uses: a prefix, and no
// slashes at the end.
func registryEntries(content []byte, m Mirror) ([]map[string]any, error) {
	read, err := readTOML(content)
	if err != nil {
		return nil, err
	}
	if err := olderRegistries(read, m); err != nil {
		return nil, err
	}
	var entries []map[string]any
	list, _ := read["registry"].([]any)
	for _, item := range list {
		entry := tableOf(item)
		if entry == nil {
			return nil, Blocked{Problem: "registry is not a list of tables", Fix: "correct it first"}
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// olderRegistries rejects settings for a registry in version 1 of the format.
func olderRegistries(read map[string]any, m Mirror) error {
	for _, kind := range []string{"block", "insecure"} {
		for _, r := range m.Registries {
			if listHas(lookUp(read, "registries", kind, "registries"), r.Name) {
				word := map[string]string{"block": "blocked", "insecure": "insecure"}[kind]
				return Blocked{
					Problem: fmt.Sprintf("[registries.%s] is of the older form, and its setting for %s would no longer count", kind, r.Name),
					Fix:     "replace it by the newer form", Lines: "[[registry]]\nlocation = " + quote(r.Name) + "\n" + word + " = true\n",
				}
			}
		}
	}
	return nil
}

// prefixOf returns the name that an entry is for.
func prefixOf(entry map[string]any) string {
	prefix, _ := entry["prefix"].(string)
	if prefix == "" {
		prefix, _ = entry["location"].(string)
	}
	return strings.TrimRight(prefix, "/")
}

// indexOf returns the index of the entry with exactly that prefix. The first
// one counts.
func (c conf) indexOf(prefix string) int {
	return slices.IndexFunc(c.entries, func(e map[string]any) bool { return prefixOf(e) == prefix })
}

// newer returns the order of Podman 6: one main file, and the drop-ins of all
// folders sorted by name. Of several with the same name, that of the first
// folder counts.
func (r registryConfs) newer() confList {
	var main, drops confList
	for _, c := range r.all {
		switch {
		case !c.dropIn && main == nil:
			main = confList{c}
		case c.dropIn && !slices.ContainsFunc(drops, func(d conf) bool { return filepath.Base(d.path) == filepath.Base(c.path) }):
			drops = append(drops, c)
		}
	}
	slices.SortStableFunc(drops, func(a, b conf) int { return cmp.Compare(filepath.Base(a.path), filepath.Base(b.path)) })
	return append(main, drops...)
}

// older returns the order of earlier versions: if the user has a main file, no
// files of the system are read. They do not know /usr/share.
func (r registryConfs) older() confList {
	hasMain := slices.ContainsFunc(r.all, func(c conf) bool { return c.user && !c.dropIn })
	var main, system, user confList
	for _, c := range r.all {
		switch {
		case strings.Contains(filepath.ToSlash(c.path), "/usr/share/containers/") || !c.user && hasMain:
		case !c.dropIn && main == nil:
			main = confList{c}
		case c.dropIn && c.user:
			user = append(user, c)
		case c.dropIn && filepath.Base(filepath.Dir(c.path)) == "registries.conf.d":
			system = append(system, c)
		}
	}
	return slices.Concat(main, system, user)
}

// found is an entry that covers a registry, and maybe others.
type found struct {
	conf
	prefix string // the part that matches the registry's name
	exact  bool   // the entry covers only that name
	table  map[string]any
}

// of returns the entry that counts for a registry: the longest match, and among
// equal ones the last.
func (l confList) of(name string) (found, bool) {
	var best found
	length := 0
	for _, c := range l {
		for i, e := range c.entries {
			prefix := prefixOf(e)
			if c.indexOf(prefix) != i || len(prefix) < length {
				continue
			}
			if n := matching(name, prefix); n > 0 {
				best, length = found{c, name[:n], prefix == name, e}, len(prefix)
			}
		}
	}
	return best, length > 0
}

// blocks returns the file that blocks a registry, in either order.
func (r registryConfs) blocks(name string) (string, bool) {
	for _, files := range []confList{r.newer(), r.older()} {
		if entry, ok := files.of(name); ok && entry.table["blocked"] == true {
			return entry.path, true
		}
	}
	return "", false
}

// matching returns how much of a registry's name a prefix matches.
func matching(name, prefix string) int {
	if rest, ok := strings.CutPrefix(prefix, "*"); ok && strings.HasPrefix(rest, ".") {
		i := strings.Index(name, rest)
		if n := i + len(rest); i >= 0 && (n == len(name) || name[n] == ':') {
			return n
		}
		return 0
	}
	if name == prefix || strings.HasPrefix(name, prefix+":") {
		return len(prefix)
	}
	return 0
}

func (f found) mirrors() []map[string]any {
	var all []map[string]any
	list, _ := f.table["mirror"].([]any)
	for _, item := range list {
		all = append(all, tableOf(item))
	}
	return all
}

// carriedOver returns the entry for this registry only, with entrepot before
// its mirrors.
func (f found) carriedOver(name string, ours []location) (string, error) {
	rest := name[len(f.prefix):]
	moved := func(value any) string {
		at, _ := value.(string)
		return strings.TrimRight(at, "/") + rest
	}
	location := name
	if at, _ := f.table["location"].(string); at != "" {
		location = moved(at)
	}
	others, err := otherKeys(f.table, "prefix", "location", "mirror")
	if err != nil {
		return "", f.cantCarry(err)
	}
	var b strings.Builder
	b.WriteString("[[registry]]\nprefix = " + quote(name) + "\nlocation = " + quote(location) + "\n" + others + textOf(ours))
	for _, mirror := range f.mirrors() {
		others, err := otherKeys(mirror, "location")
		if err != nil {
			return "", f.cantCarry(err)
		}
		b.WriteString("\n[[registry.mirror]]\nlocation = " + quote(moved(mirror["location"])) + "\n" + others)
	}
	return b.String(), nil
}

func (f found) cantCarry(err error) error {
	return Blocked{Path: f.path, Problem: err.Error(), Fix: "remove it from the entry for " + f.prefix}
}

// otherKeys writes the keys of a table, except the given ones.
func otherKeys(table map[string]any, but ...string) (string, error) {
	var b strings.Builder
	for _, key := range sortedKeys(table) {
		if slices.Contains(but, key) {
			continue
		}
		if tableOf(table[key]) != nil {
			return "", fmt.Errorf("%s is a table, which can't be copied", key)
		}
		line, err := toml.Marshal(map[string]any{key: table[key]})
		if err != nil {
			return "", err
		}
		b.Write(line)
	}
	return b.String(), nil
}
