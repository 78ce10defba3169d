package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// docker configures certs.d and daemon.json. Docker 29 and later read a
// hosts.toml for each registry from certs.d, because their images are in
// containerd's store. 29.0 and 28 read them too, but their library ignores a
// whole file that contains "referrers" (W59), and then they use daemon.json.
// Older versions look in certs.d only for *.crt, *.cert and *.key. So the two
// together suit every version. If a hosts.toml names a mirror, registry-mirrors
// in daemon.json does not count.
func docker() Runtime {
	return Runtime{
		Name:    "docker",
		Program: []string{"dockerd", "--version"},
		Version: func(text string) (Version, error) {
			v, ok := ParseVersion(text)
			if !ok {
				return Version{}, errors.New("is not a version such as 29")
			}
			return v, nil
		},
		Place:   func(m Machine) string { return m.Own("/etc/docker", "docker") },
		Files:   dockerFiles,
		Comes:   dockerComes,
		Ask:     dockerAsk,
		Down:    dockerDown,
		Restart: "nothing for the files below certs.d, which are read at each pull; after a change of daemon.json: systemctl reload docker",
		// A reload adds settings of the file, but does not remove any.
		Undone: "nothing for the files below certs.d, which are read at each pull; after a change of daemon.json: systemctl restart docker, because a reload does not remove mirrors",
	}
}

const (
	mirrorsKey  = "registry-mirrors"
	insecureKey = "insecure-registries"
)

func dockerFiles(s Setting) (Layout, error) {
	var layout Layout
	newer := !s.Version.Known() || s.Version.AtLeast(29, 0)
	// An upgraded Docker may still use its older image store, and then it reads
	// only daemon.json. Only a user who gives the version knows that it does
	// not.
	older := !s.Version.Known() || s.Version.Found || !s.Version.AtLeast(29, 0)
	if older {
		files, notes, err := s.daemonFiles()
		switch {
		case err != nil && newer && s.Version.Known():
			layout.Notes = append(layout.Notes, "daemon.json is not changed: "+err.Error())
		case err != nil:
			return layout, err
		}
		layout.Files, layout.Notes = append(layout.Files, files...), append(layout.Notes, notes...)
	}
	if !newer {
		return layout, nil
	}
	if !s.Version.Known() {
		layout.Notes = append(layout.Notes, dockerNoVersion)
	}
	daemon, err := s.Theirs(s.below("daemon.json"))
	if err != nil {
		return layout, err
	}
	for _, r := range s.Mirror.Registries {
		h := hostsTOML{
			runtime: "docker", registry: r, mirror: s.Mirror,
			referrers: !s.Version.Known() || s.Version.AtLeast(29, 1),
		}
		if err := h.takeOver(daemon); err != nil {
			var blocked Blocked
			if errors.As(err, &blocked) {
				blocked.Path = s.below("daemon.json")
				return layout, blocked
			}
			return layout, err
		}
		file, notes, err := s.hostsFile([]string{s.below("certs.d")}, h)
		if err != nil {
			return layout, err
		}
		layout.Files, layout.Notes = append(layout.Files, file), append(layout.Notes, notes...)
	}
	return layout, nil
}

const dockerNoVersion = `without --version there are two forms: daemon.json, which every Docker reads, for docker.io only; and certs.d/REGISTRY/hosts.toml, which Docker 29 and later read, for every registry and for signatures and attestations. --write writes both, --version 29 only the second`

// takeOver copies settings of daemon.json that would no longer count. Docker
// ignores them for a registry whose hosts.toml names a mirror.
func (h *hostsTOML) takeOver(daemon []byte) error {
	values, err := readObject(daemon)
	if err != nil {
		return err
	}
	insecure, err := listOf(values, insecureKey)
	if err != nil {
		return err
	}
	h.insecure = h.registry.Server.Host == h.registry.Name && isInsecure(insecure, h.registry.Name)
	if h.registry.Name != dockerHub {
		return nil
	}
	mirrors, err := listOf(values, mirrorsKey)
	for _, mirror := range mirrors {
		u, parseErr := url.Parse(mirror)
		h.more = append(h.more, otherHost{
			url: strings.TrimSuffix(mirror, "/"), capabilities: h.capabilities(), insecure: parseErr == nil && u.Scheme == "https" && isInsecure(insecure, u.Host),
		})
	}
	return err
}

// isInsecure reports whether a host is in a list of hosts and networks.
func isInsecure(list []string, host string) bool {
	alone, _, err := net.SplitHostPort(host)
	if err != nil {
		alone = host
	}
	ip, ipErr := netip.ParseAddr(alone)
	return slices.ContainsFunc(list, func(item string) bool {
		network, err := netip.ParsePrefix(item)
		return item == host || err == nil && ipErr == nil && network.Contains(ip)
	})
}

// daemonFiles returns daemon.json and, if the system does not trust entrepot's
// certificate, the file with its issuer, which Docker reads from a folder in
// certs.d.
func (s Setting) daemonFiles() ([]File, []string, error) {
	mirrors, err := s.dockerMirrors()
	if err != nil {
		return nil, nil, err
	}
	files := []File{{Path: s.below("daemon.json"), Edit: s.beside(daemonJSON(mirrors))}}
	if s.Mirror.CAFile == "" {
		return files, nil, nil
	}
	ca, err := os.ReadFile(s.Mirror.CAFile)
	if err != nil {
		return nil, nil, fmt.Errorf("certificates of entrepot (--ca): %w", err)
	}
	for _, mirror := range mirrors {
		if u, err := url.Parse(mirror); err == nil && u.Scheme == "https" {
			files = append(files, File{Path: s.below("certs.d/" + u.Host + "/entrepot.crt"), Edit: wholly(ca)})
		}
	}
	return files, nil, nil
}

// beside rejects a daemon.json with which Docker would not start again: a
// setting must not be both a flag and in the file.
func (s Setting) beside(edit Edit) Edit {
	return func(theirs []byte) (Change, error) {
		change, err := edit(theirs)
		if err != nil || s.blank || s.DirGiven || string(change.Content) == string(theirs) {
			return change, err
		}
		for _, args := range s.Machine.Running("dockerd") {
			if slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "--registry-mirror") }) {
				return change, Blocked{
					Problem: "Docker is started with --registry-mirror, and does not start if " + mirrorsKey + " is in this file too",
					Fix:     "move the flag's value into the file: systemctl cat docker shows where the flag is set",
				}
			}
		}
		return change, nil
	}
}

// wholly returns the edit for a file that contains only entrepot's content.
func wholly(content []byte) Edit {
	return func(theirs []byte) (Change, error) {
		if theirs != nil && string(theirs) != string(content) {
			return Change{}, Blocked{Problem: "the file exists and was not made by entrepot", Fix: "move it away"}
		}
		return Change{Content: content, Undo: Undo{Kind: undoWhole}}, nil
	}
}

// daemonJSON adds mirrors at the start of those in a daemon.json.
// insecure-registries is not needed for them, because Docker uses the scheme of
// their URLs.
func daemonJSON(mirrors []string) Edit {
	return func(theirs []byte) (Change, error) {
		after, put, err := putIntoList(theirs, mirrorsKey, mirrors)
		if errors.Is(err, errUnproven) {
			return Change{}, Blocked{Problem: err.Error(), Fix: "add this by hand", Lines: quote(mirrorsKey) + ": " + quoteAll(mirrors)}
		}
		if err != nil || len(put) == 0 {
			return Change{Content: theirs}, err
		}
		return Change{Content: after, Undo: Undo{Kind: undoLists, Lists: map[string][]string{mirrorsKey: put}}}, nil
	}
}

// dockerMirrors returns the URLs at which requests without a registry's name
// mean docker.io. Docker's registry-mirrors apply only to docker.io, and its
// older image store does not name the registry in its requests.
func (s Setting) dockerMirrors() ([]string, error) {
	const newer = "; or give --version 29 if it is 29 or later, which names every registry"
	hub, ok := s.Mirror.Registry(dockerHub)
	if !ok {
		return nil, errors.New("docker before 29 mirrors docker.io only, which is not among the upstreams" + newer)
	}
	addresses := s.Mirror.Addresses
	if !hub.Default {
		addresses = s.Mirror.AtVirtualHost(hub)
	}
	if len(addresses) == 0 {
		return nil, errors.New("docker before 29 mirrors docker.io without naming it: make that upstream the default, or give it a virtual host under hosts" + newer)
	}
	var mirrors []string
	for _, address := range addresses {
		mirrors = append(mirrors, address.String())
	}
	return mirrors, nil
}

func dockerComes(s Setting, r Registry) error {
	roots := []string{s.below("certs.d")}
	if s.Version.AtLeast(29, 0) {
		return comesByHosts(roots, s.Mirror, r, false)
	}
	daemon := func() error {
		if r.Name != dockerHub {
			return errNotAsked
		}
		mirrors, err := s.dockerMirrors()
		if err != nil {
			return err
		}
		content, err := readFile(s.below("daemon.json"))
		if err != nil {
			return err
		}
		values, err := readObject(content)
		if err != nil {
			return fmt.Errorf("%s: %w", s.below("daemon.json"), err)
		}
		list, err := listOf(values, mirrorsKey)
		switch {
		case err != nil:
			return err
		case len(list) == 0:
			return fmt.Errorf("%s lists no mirror", s.below("daemon.json"))
		case !slices.ContainsFunc(mirrors, func(m string) bool { return sameMirror(m, list[0]) }):
			return fmt.Errorf("%s lists %s first", s.below("daemon.json"), list[0])
		}
		return nil
	}()
	if s.Version.Known() {
		return daemon
	}
	// If the version is unknown, both have to be right, as far as Docker asks
	// at all.
	if daemon != nil && !errors.Is(daemon, errNotAsked) {
		return daemon
	}
	return comesByHosts(roots, s.Mirror, r, false)
}

func dockerAsk(ctx context.Context, s Setting) (Verdict, error) {
	daemon := s.below("daemon.json")
	if content, err := readFile(daemon); err != nil || content == nil {
		return Verdict{}, err
	}
	v := Verdict{Asked: "dockerd --validate --config-file " + filepath.ToSlash(daemon)}
	said, err := s.Machine.Output(ctx, "dockerd", "--validate", "--config-file", daemon)
	if errors.Is(err, ErrNotInstalled) {
		return Verdict{}, err
	}
	if err != nil && strings.Contains(said, "unknown flag: --validate") {
		return Verdict{}, fmt.Errorf("dockerd before 23 %w", errCantSay)
	}
	if err != nil {
		v.Said = said
	}
	return v, nil
}

func dockerDown(v Version) string {
	switch {
	case v.AtLeast(29, 0):
		return "nothing where the connection is refused, 1 s a request where its machine is gone, 30 s a request where it hangs"
	case v.Known():
		return "nothing where the connection is refused, 15 s a request where its machine is gone or it hangs"
	}
	return "nothing where the connection is refused, 15 s a request where its machine is gone (1 s from 29 on), 15 to 30 s where it hangs"
}
