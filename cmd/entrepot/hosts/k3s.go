package hosts

import (
	"errors"
	"fmt"
)

// registriesYAML configures registries.yaml, from which k3s and rke2 write
// containerd's hosts.toml, so ?ns= names the registry. They take the path of an
// endpoint for the whole path of the API. They ask the registry itself last,
// unless they are started with --disable-default-registry-endpoint.
func registriesYAML(distribution string) Runtime {
	return Runtime{
		Name:      distribution,
		Elsewhere: true,
		Place:     func(m Machine) string { return m.System("/etc/rancher/" + distribution) },
		Files: func(s Setting) (Layout, error) {
			layout := Layout{Files: []File{{Path: s.below("registries.yaml"), Edit: s.Mirror.registriesEdit(distribution)}}}
			for _, file := range s.Mirror.caFiles() {
				layout.Notes = append(layout.Notes, "each node needs "+file+" at the same path")
			}
			return layout, nil
		},
		Comes: registriesYAMLComes,
		Down: func(Version) string {
			return "nothing where the connection is refused, 30 s a request where its machine is gone or it hangs (before containerd 2.3 for as long as it hangs)"
		},
		Restart: "the node's service: systemctl restart " + distribution + " or its agent",
	}
}

// caFiles returns all certificate files that are named.
func (m Mirror) caFiles() []string {
	var all []string
	for _, host := range m.hostsWithTLS() {
		if host.ca != "" {
			all = append(all, host.ca)
		}
	}
	return all
}

// hostTLS is a host that is reached by HTTPS, with its settings.
type hostTLS struct {
	host, ca string
	insecure bool
}

// hostsWithTLS returns the hosts of entrepot and of registries for which the
// runtime needs a CA, or must not check certificates.
func (m Mirror) hostsWithTLS() []hostTLS {
	var all []hostTLS
	seen := map[string]bool{}
	add := func(h hostTLS) {
		if !seen[h.host] && (h.ca != "" || h.insecure) {
			seen[h.host] = true
			all = append(all, h)
		}
	}
	for _, address := range m.Addresses {
		if address.Scheme == "https" {
			add(hostTLS{address.Host, m.CAFile, false})
		}
	}
	for _, r := range m.Registries {
		add(hostTLS{r.Server.Host, r.Server.CAFile, r.Server.Insecure})
	}
	return all
}

// allRegistries is the key for registries without a key of their own.
const allRegistries = "*"

func (m Mirror) registriesEdit(distribution string) Edit {
	return func(theirs []byte) (Change, error) {
		read, err := readYAML(theirs)
		if err != nil {
			return Change{}, err
		}
		branches, err := m.registriesBranches(read)
		if err != nil {
			return Change{}, err
		}
		content, err := putIntoYAML(distribution, theirs, branches)
		if errors.Is(err, errUnproven) {
			return Change{}, Blocked{Problem: err.Error(), Fix: "write it with one key per line, or add this by hand, before what is there", Lines: textOfBranches(branches, 0)}
		}
		return Change{Content: content, Undo: Undo{Kind: undoMarked}}, err
	}
}

// registriesBranches returns what has to be added to a registries.yaml.
func (m Mirror) registriesBranches(read map[string]any) ([]branch, error) {
	mirrors, configs := tableAt(read, "mirrors"), tableAt(read, "configs")
	var names []branch
	for _, r := range m.Registries {
		there, has := mirrors[r.Name]
		from := r.Name
		if !has {
			there, from = mirrors[allRegistries], allRegistries
		}
		entry := tableOf(there)
		if rewrite := tableOf(entry["rewrite"]); len(rewrite) > 0 {
			return nil, Blocked{
				Problem: fmt.Sprintf("mirrors.%s has a rewrite, which would also change requests to entrepot", quote(from)),
				Fix:     "remove it, and name its mirror in entrepot's configuration as an endpoint of " + r.Upstream + ", with the path that the rewrite makes",
			}
		}
		var list []string
		for _, address := range m.Addresses {
			list = append(list, address.String())
		}
		theirs, _ := entry["endpoint"].([]any)
		switch {
		case has && theirs != nil:
		case theirs != nil: // the wildcard no longer counts for this registry
			list = append(list, textsOf(theirs)...)
		default:
			for _, endpoint := range m.endpoints(r)[len(m.Addresses):] {
				list = append(list, endpoint.url)
			}
		}
		names = append(names, branch{key: r.Name, branches: []branch{{key: "endpoint", list: list}}})
	}
	branches := []branch{{key: "mirrors", branches: names}}
	var hosts []branch
	for _, h := range m.hostsWithTLS() {
		// The hosts.toml that they write works with either name. Their pulls of
		// their own images use only this one.
		if _, has := configs[h.host]; h.host == dockerHubServer && !has {
			h.host = dockerHub
		}
		tls := tableAt(tableOf(configs[h.host]), "tls")
		var keys []branch
		if ca, ok := tls["ca_file"]; ok && h.ca != "" && ca != h.ca {
			return nil, Blocked{
				Problem: fmt.Sprintf("configs.%s.tls.ca_file is %v, and there can be only one", quote(h.host), ca),
				Fix:     "put the certificates of " + h.ca + " into it, and name it instead: with --ca, or as the upstream's tls.ca_file",
			}
		} else if !ok && h.ca != "" {
			keys = append(keys, branch{key: "ca_file", scalar: h.ca})
		}
		if _, ok := tls["insecure_skip_verify"]; !ok && h.insecure {
			keys = append(keys, branch{key: "insecure_skip_verify", scalar: true})
		}
		if keys != nil {
			hosts = append(hosts, branch{key: h.host, branches: []branch{{key: "tls", branches: keys}}})
		}
	}
	if hosts != nil {
		branches = append(branches, branch{key: "configs", branches: hosts})
	}
	return branches, nil
}

func registriesYAMLComes(s Setting, r Registry) error {
	path := s.below("registries.yaml")
	content, err := readFile(path)
	if err != nil {
		return err
	}
	read, err := readYAML(content)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	mirrors := tableAt(read, "mirrors")
	entry, ok := mirrors[r.Name]
	if !ok {
		entry = mirrors[allRegistries]
	}
	endpoints, _ := tableOf(entry)["endpoint"].([]any)
	switch {
	case len(endpoints) == 0:
		return errors.New(path + " lists no mirror for it")
	case len(tableOf(tableOf(entry)["rewrite"])) > 0:
		return errors.New(path + " rewrites requests")
	}
	if first, _ := endpoints[0].(string); !s.Mirror.isAddress(first) {
		return fmt.Errorf("%s lists %s first", path, first)
	}
	return nil
}

// endpoint is a URL to try. Whole says that its path is the path of the API.
type endpoint struct {
	url   string
	whole bool
}

// endpoints returns the URLs to try in order, for runtimes that only know that
// a registry is at https://name, and where docker.io is.
func (m Mirror) endpoints(r Registry) []endpoint {
	var endpoints []endpoint
	for _, address := range m.Addresses {
		endpoints = append(endpoints, endpoint{url: address.String()})
	}
	own := r.Server.Scheme == "https" && (r.Server.Place.String() == "https://"+r.Name || r.Name == dockerHub && r.Server.Place.String() == "https://"+dockerHubServer)
	switch {
	case own: // its certificates are configured in another place
	case r.Server.Bare():
		endpoints = append(endpoints, endpoint{url: r.Server.Origin()})
	default:
		endpoints = append(endpoints, endpoint{url: r.Server.API(), whole: true})
	}
	return endpoints
}
