package hosts

import (
	"fmt"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// olderRegistry is what the older form of a config.toml says of registries: by
// mirrors, and by configs of whom a host's certificate is signed by. containerd
// goes by it alone where there is no config_path, and does not load CRI where
// there are both.
type olderRegistry struct {
	mirrors, configs map[string]any
}

func olderIn(read map[string]any) olderRegistry {
	registry := tableAt(read, append(criSection(read), "registry")...)
	return olderRegistry{tableOf(registry["mirrors"]), tableOf(registry["configs"])}
}

// names are what is set in the older form, nil where nothing is. That of
// credentials stands beside config_path.
func (o olderRegistry) names() []string {
	var names []string
	for _, name := range sortedKeys(o.mirrors) {
		names = append(names, "mirrors."+quote(name))
	}
	for _, host := range sortedKeys(o.configs) {
		if o.tls(host) != nil {
			names = append(names, "configs."+quote(host)+".tls")
		}
	}
	return names
}

func (o olderRegistry) tls(host string) map[string]any {
	return tableOf(tableOf(o.configs[host])["tls"])
}

// folders are those that have to have a hosts.toml for the same to be said.
func (o olderRegistry) folders() []string {
	seen := map[string]any{}
	for name := range o.mirrors {
		seen[olderFolder(name)] = nil
	}
	for host := range o.configs {
		if o.tls(host) != nil {
			seen[olderFolder(host)] = nil
		}
	}
	return sortedKeys(seen)
}

// olderFolder is the folder for a registry, or for the host that it is at.
func olderFolder(name string) string {
	switch name {
	case "*":
		return everyRegistry
	case dockerHubServer:
		return dockerHub
	}
	return name
}

func endpointsOf(mirror any) []string {
	list, _ := tableOf(mirror)["endpoint"].([]any)
	return textsOf(list)
}

// says is false for a registry of which nothing is said.
func (o olderRegistry) says(folder string) bool {
	text, err := o.hostsTOML(folder)
	return text != "" || err != nil
}

// hostsTOML says the same of a registry as a hosts.toml. It is empty for one of
// which nothing is said.
func (o olderRegistry) hostsTOML(folder string) (string, error) {
	mirror, own := o.mirrors[folder]
	if folder == everyRegistry {
		mirror, own = o.mirrors["*"]
	}
	if !own {
		mirror = o.mirrors["*"]
	}
	server := folder
	if folder == dockerHub {
		server = dockerHubServer
	}
	tls := olderTLS(o.tls(server), "")
	endpoints := endpointsOf(mirror)
	if len(endpoints) == 0 && tls == "" {
		return "", nil
	}
	var b strings.Builder
	b.WriteString(tls)
	var seen []string
	for _, endpoint := range endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return "", fmt.Errorf("the mirror %s is not a URL", quote(endpoint))
		}
		if slices.Contains(seen, endpoint) {
			continue
		}
		seen = append(seen, endpoint)
		if b.Len() > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "[host.%s]\n  capabilities = [\"pull\", \"resolve\"]\n", quote(endpoint))
		if path := strings.TrimSuffix(u.Path, "/"); path != "" && path != "/v2" {
			b.WriteString("  override_path = true\n") // it is all of the API's path
		}
		b.WriteString(olderTLS(o.tls(u.Host), "  "))
	}
	return b.String(), nil
}

func olderTLS(tls map[string]any, indent string) string {
	var b strings.Builder
	if ca, _ := tls["ca_file"].(string); ca != "" {
		b.WriteString(indent + "ca = " + quote(ca) + "\n")
	}
	certificate, _ := tls["cert_file"].(string)
	key, _ := tls["key_file"].(string)
	if certificate != "" {
		b.WriteString(indent + "client = [" + quoteAll([]string{certificate, key}) + "]\n")
	}
	if insecure, _ := tls["insecure_skip_verify"].(bool); insecure {
		b.WriteString(indent + "skip_verify = true\n")
	}
	return b.String()
}

// without takes the older form out of a config.toml, and keeps its lines in
// comments.
func (o olderRegistry) without(content []byte, section []string) []byte {
	lines, all := linesOf(content), expressions(content)
	var changes []replacement
	for i, e := range all {
		if !e.opens || !o.has(e.path, section) {
			continue
		}
		end := len(lines) + 1
		for _, next := range all[i+1:] {
			if next.opens {
				end = above(lines, next.line)
				break
			}
		}
		for end-1 > e.line && strings.TrimSpace(lines[end-2]) == "" {
			end-- // what is between it and the next stays between
		}
		changes = append(changes, replacement{e.line, end - e.line, marked("containerd", insteadOf(strings.Join(lines[e.line-1:end-1], "")))})
	}
	return []byte(strings.Join(replaced(lines, changes), ""))
}

// has says whether a table is of the older form.
func (o olderRegistry) has(path, section []string) bool {
	if len(path) <= len(section) || !slices.Equal(path[:len(section)], section) {
		return false
	}
	rest := path[len(section):]
	return rest[0] == "mirrors" || rest[0] == "configs" && len(rest) > 2 && rest[2] == "tls"
}

// takeOlder takes the older form out of what a config.toml means, with tables
// that have nothing else in them.
func takeOlder(read map[string]any) map[string]any {
	registry := tableAt(read, append(criSection(read), "registry")...)
	delete(registry, "mirrors")
	configs := tableOf(registry["configs"])
	for host, config := range configs {
		if table := tableOf(config); table != nil {
			delete(table, "tls")
			if len(table) == 0 {
				delete(configs, host)
			}
		}
	}
	if configs != nil && len(configs) == 0 {
		delete(registry, "configs")
	}
	return read
}

// moveOlder has a config.toml say by config_path what it says in the older form:
// the files of that folder say the same.
func moveOlder(theirs []byte, folder, setting string) ([]byte, error) {
	read, err := readTOML(theirs)
	if err != nil {
		return nil, err
	}
	older, section := olderIn(read), append(criSection(read), "registry")
	refused := older.blocked(folder)
	content := older.without(theirs, section)
	content, err = setConfigPath(linesOf(content), expressions(content), section, setting)
	if err == nil {
		var got map[string]any
		want := takeOlder(read)
		if !(setKey{append(slices.Clone(section), "config_path"), folder}).in(want) {
			err = errUnproven
		} else if got, err = readTOML(content); err == nil && (olderIn(got).names() != nil || !reflect.DeepEqual(takeOlder(got), want)) {
			err = errUnproven
		}
	}
	if err != nil {
		return nil, refused
	}
	return content, nil
}

// blocked says by hand what can't be moved.
func (o olderRegistry) blocked(root string) Blocked {
	var lines strings.Builder
	for _, folder := range o.folders() {
		text, err := o.hostsTOML(folder)
		if err != nil {
			text = "# " + err.Error() + "\n"
		}
		fmt.Fprintf(&lines, "# %s\n%s", filepath.Join(root, folder, "hosts.toml"), text)
	}
	return Blocked{
		Problem: "its older registry settings (" + strings.Join(o.names(), ", ") + ") can't stand beside config_path: containerd would not load CRI, and the node would have no images",
		Mend:    "move them into files of these names, take them out there, and run this again",
		Lines:   lines.String(),
	}
}

// files are those that say what the older form says of registries that entrepot
// does not stand before.
func (o olderRegistry) files(s Setting, c containerdConfig) ([]File, error) {
	var files []File
	for _, folder := range o.folders() {
		if _, ours := s.Mirror.Registry(folder); ours {
			continue
		}
		f, err := o.moved(s, c, folder, nil)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// moved is a hosts.toml that says of a registry what the older form says, with
// ours before it where entrepot stands before the registry.
func (o olderRegistry) moved(s Setting, c containerdConfig, folder string, h *hostsTOML) (File, error) {
	root := c.roots[0]
	f := File{Path: filepath.Join(root, folder, "hosts.toml")}
	text, err := o.hostsTOML(folder)
	if err != nil {
		return f, Blocked{Path: c.path, Problem: err.Error(), Mend: "mend it first"}
	}
	there, err := s.folderOf([]string{root}, folder)
	if err != nil {
		return f, err
	}
	if base := filepath.Base(there); there != "" && (base == folder || base == hostFolder(folder)) {
		content, err := s.Theirs(filepath.Join(there, "hosts.toml"))
		if err != nil {
			return f, err
		}
		if content != nil || base != folder {
			return f, Blocked{
				Path: there, Problem: "nothing has read it so far, and what " + c.path + " says of " + folder + " in the older form would have to go there",
				Mend: "put what is in it together with this by hand, or move it away", Lines: text,
			}
		}
	}
	if h != nil {
		f.Edit = h.editCopyOf(c.path, []byte(text))
		return f, nil
	}
	f.Edit = func([]byte) (Change, error) {
		return Change{Content: []byte(marked("containerd", text)), Undo: Undo{Kind: undoMarked}}, nil
	}
	f.Aside = true
	return f, nil
}
