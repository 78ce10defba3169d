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

// conf is one file of registries.
type conf struct {
	path    string
	user    bool // below a user's own folder
	own     bool // who runs this may change it
	dropIn  bool
	entries []map[string]any
}

// confList are files in the order in which they are read: the last one counts.
type confList []conf

type registryConfs struct{ all confList }

// confFolder is a folder of registries.conf and its drop-ins.
type confFolder struct {
	path      string
	user, own bool
}

// confFolders are those that are read, whose word counts most first. Podman 6
// goes by XDG's folder, those before by .config in the home, and both do for
// root as well.
func (s Setting) confFolders() []confFolder {
	folder := filepath.Dir(s.Dir)
	if s.Told {
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
		confFolder{path: m.System("/usr/share/containers")}, // a package's
	)
}

// dropInFolders are where ours has to be so that every version reads it: a
// user with a registries.conf of their own reads the system's drop-ins no more.
func (s Setting) dropInFolders() []string {
	folders := []string{s.Dir}
	if s.blank || s.Told {
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

// readConfs reads what is there without ours.
func (s Setting) readConfs() (registryConfs, error) {
	var all registryConfs
	if s.blank {
		return all, nil
	}
	for _, f := range s.confFolders() {
		paths := []string{filepath.Join(f.path, "registries.conf")}
		// Podman 6 has folders for root and for others besides.
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

// registryEntries are a file's registries, those of one prefix but the first
// left out, with what every version goes by: the prefix is there, and neither
// has slashes at its end.
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
			return nil, Blocked{Problem: "registry is not a list of tables", Mend: "mend it first"}
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// olderRegistries refuses what version 1 of the format says of a registry.
func olderRegistries(read map[string]any, m Mirror) error {
	for _, kind := range []string{"block", "insecure"} {
		for _, r := range m.Registries {
			if listHas(lookUp(read, "registries", kind, "registries"), r.Name) {
				word := map[string]string{"block": "blocked", "insecure": "insecure"}[kind]
				return Blocked{
					Problem: fmt.Sprintf("[registries.%s] is of the older form, and what it says of %s would count no more", kind, r.Name),
					Mend:    "say it in the newer form in place of the older", Lines: "[[registry]]\nlocation = " + quote(r.Name) + "\n" + word + " = true\n",
				}
			}
		}
	}
	return nil
}

// prefixOf is the name that an entry is for.
func prefixOf(entry map[string]any) string {
	prefix, _ := entry["prefix"].(string)
	if prefix == "" {
		prefix, _ = entry["location"].(string)
	}
	return strings.TrimRight(prefix, "/")
}

// indexOf is which entry of the file is for exactly that prefix; the first one
// counts.
func (c conf) indexOf(prefix string) int {
	return slices.IndexFunc(c.entries, func(e map[string]any) bool { return prefixOf(e) == prefix })
}

// newer is the order of Podman 6: one main file, and drop-ins by their names,
// whichever folder they are in; of one name the first folder's.
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

// older is the order of those before: with a main file of the user's own,
// nothing of the system's is read. They know no /usr/share.
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

// found is an entry that is for a registry, perhaps with others.
type found struct {
	conf
	prefix string // as far as the registry's name matches
	exact  bool   // the entry is for that name alone
	table  map[string]any
}

// of is the entry that counts for a registry: the longest that matches, and of
// the same the last.
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

// blocks is the file that blocks a registry, in the one order or the other.
func (r registryConfs) blocks(name string) (string, bool) {
	for _, files := range []confList{r.newer(), r.older()} {
		if entry, ok := files.of(name); ok && entry.table["blocked"] == true {
			return entry.path, true
		}
	}
	return "", false
}

// matching is how much of a registry's name a prefix stands for.
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

// carriedOver is the entry as one of the registry alone, with ours before its
// mirrors.
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
	return Blocked{Path: f.path, Problem: err.Error(), Mend: "take it out of the entry for " + f.prefix}
}

// otherKeys writes the keys of a table, but for those that are named.
func otherKeys(table map[string]any, but ...string) (string, error) {
	var b strings.Builder
	for _, key := range sortedKeys(table) {
		if slices.Contains(but, key) {
			continue
		}
		if tableOf(table[key]) != nil {
			return "", fmt.Errorf("%s is a table, which can't be carried over", key)
		}
		line, err := toml.Marshal(map[string]any{key: table[key]})
		if err != nil {
			return "", err
		}
		b.Write(line)
	}
	return b.String(), nil
}
