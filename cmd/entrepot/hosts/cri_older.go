package hosts

import (
	"fmt"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// olderRegistry holds the registry settings of a config.toml in the older form:
// mirrors, and in configs the certificates for each host. containerd uses it
// only without config_path, and does not load CRI if both are set.
type olderRegistry struct {
	mirrors, configs map[string]any
}

func olderIn(read map[string]any) olderRegistry {
	registry := tableAt(read, append(criSection(read), "registry")...)
	return olderRegistry{tableOf(registry["mirrors"]), tableOf(registry["configs"])}
}

// names returns the settings in the older form, or nil if there are none.
// Credentials are left out, because they may be combined with config_path.
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

// folders returns the folders that need a hosts.toml with the same settings.
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

// olderFolder returns the folder for a registry, or for the host that it is at.
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

// says reports whether there are settings for a registry.
func (o olderRegistry) says(folder string) bool {
	text, err := o.hostsTOML(folder)
	return text != "" || err != nil
}

// hostsTOML returns a hosts.toml with the same settings for a registry. It is
// empty if there are none.
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
			b.WriteString("  override_path = true\n") // the path is already that of the API
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

// without removes the older form from a config.toml, and leaves its lines there
// as comments.
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
			end-- // lines between it and the next table stay
		}
		changes = append(changes, replacement{e.line, end - e.line, marked("containerd", insteadOf(strings.Join(lines[e.line-1:end-1], "")))})
	}
	return []byte(strings.Join(replaced(lines, changes), ""))
}

// has reports whether a table belongs to the older form.
func (o olderRegistry) has(path, section []string) bool {
	if len(path) <= len(section) || !slices.Equal(path[:len(section)], section) {
		return false
	}
	rest := path[len(section):]
	return rest[0] == "mirrors" || rest[0] == "configs" && len(rest) > 2 && rest[2] == "tls"
}

// removeOlder removes the older form from a decoded config.toml, and tables
// that are empty without it.
func removeOlder(read map[string]any) map[string]any {
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

// moveOlder replaces the older form in a config.toml by config_path. The files
// in that folder have the same settings.
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
		want := removeOlder(read)
		if !(setKey{append(slices.Clone(section), "config_path"), folder}).in(want) {
			err = errUnproven
		} else if got, err = readTOML(content); err == nil && (olderIn(got).names() != nil || !reflect.DeepEqual(removeOlder(got), want)) {
			err = errUnproven
		}
	}
	if err != nil {
		return nil, refused
	}
	return content, nil
}

// blocked returns the error for settings that have to be moved by hand.
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
		Problem: "its older registry settings (" + strings.Join(o.names(), ", ") + ") can't be combined with config_path: containerd would not load CRI, and the node would have no images",
		Fix:     "move them into files with these names, remove them there, and run this again",
		Lines:   lines.String(),
	}
}

// files returns the files for registries that have older settings and are not
// mirrored by entrepot.
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

// moved returns a hosts.toml with a registry's settings from the older form. If
// entrepot mirrors the registry, entrepot comes first.
func (o olderRegistry) moved(s Setting, c containerdConfig, folder string, h *hostsTOML) (File, error) {
	root := c.roots[0]
	f := File{Path: filepath.Join(root, folder, "hosts.toml")}
	text, err := o.hostsTOML(folder)
	if err != nil {
		return f, Blocked{Path: c.path, Problem: err.Error(), Fix: "correct it first"}
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
				Path: there, Problem: "containerd has not read it so far, and the older settings for " + folder + " in " + c.path + " have to go there",
				Fix: "merge it with this by hand, or move it away", Lines: text,
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
	f.Extra = true
	return f, nil
}
