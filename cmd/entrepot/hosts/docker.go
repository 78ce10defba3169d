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

// docker reads, from 29 on, a hosts.toml for every registry from its certs.d,
// for its images are in containerd's store. 29.0 and 28 read these as well, but
// by a library that ignores a whole file that names "referrers" (W59), and then
// they go by daemon.json. Older ones look there for *.crt, *.cert and *.key
// alone. So both together suit every version, and where a hosts.toml names a
// mirror the registry-mirrors of daemon.json do not count.
func docker() Runtime {
	return Runtime{
		Name:    "docker",
		Program: []string{"dockerd", "--version"},
		Version: func(told string) (Version, error) {
			v, ok := ParseVersion(told)
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
		// A reload takes over what the file says, and keeps what it says no more.
		Undone: "nothing for the files below certs.d, which are read at each pull; after a change of daemon.json: systemctl restart docker, for a reload keeps the mirrors that it had",
	}
}

const (
	mirrorsKey  = "registry-mirrors"
	insecureKey = "insecure-registries"
)

func dockerFiles(s Setting) (Layout, error) {
	var layout Layout
	newer := !s.Version.Known() || s.Version.AtLeast(29, 0)
	// One that was upgraded may keep its images where it had them, and then it
	// reads daemon.json alone: only a person who says so knows that it does not.
	older := !s.Version.Known() || s.Version.Found || !s.Version.AtLeast(29, 0)
	if older {
		files, notes, err := s.daemonFiles()
		switch {
		case err != nil && newer && s.Version.Known():
			layout.Notes = append(layout.Notes, "daemon.json is left alone: "+err.Error())
		case err != nil:
			return layout, err
		}
		layout.Files, layout.Notes = append(layout.Files, files...), append(layout.Notes, notes...)
	}
	if !newer {
		return layout, nil
	}
	if !s.Version.Known() {
		layout.Notes = append(layout.Notes, dockerUntold)
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

const dockerUntold = `without --version there are two forms: daemon.json, which every Docker reads, for docker.io alone; and from 29 on certs.d/REGISTRY/hosts.toml, for every registry and for signatures and attestations. --write writes both, --version 29 is the second alone`

// takeOver carries over what daemon.json says, and what would count no more:
// Docker does not look there for a registry whose hosts.toml names a mirror.
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

// isInsecure says whether a host is in a list of hosts and networks.
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

// daemonFiles are daemon.json and, where entrepot's certificate is not known to
// the system, who signed it: that Docker takes from a folder of certs.d.
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

// beside refuses a daemon.json that a running Docker would not start with again:
// what a flag says may not be in the file too.
func (s Setting) beside(edit Edit) Edit {
	return func(theirs []byte) (Change, error) {
		change, err := edit(theirs)
		if err != nil || s.blank || s.Told || string(change.Content) == string(theirs) {
			return change, err
		}
		for _, args := range s.Machine.Running("dockerd") {
			if slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "--registry-mirror") }) {
				return change, Blocked{
					Problem: "Docker is started with --registry-mirror, and does not start where " + mirrorsKey + " is in this file too",
					Mend:    "move what the flag says into the file: systemctl cat docker shows where it stands",
				}
			}
		}
		return change, nil
	}
}

// wholly is for a file that is all ours.
func wholly(content []byte) Edit {
	return func(theirs []byte) (Change, error) {
		if theirs != nil && string(theirs) != string(content) {
			return Change{}, Blocked{Problem: "it is there already and not made by entrepot", Mend: "move it away"}
		}
		return Change{Content: content, Undo: Undo{Kind: undoWhole}}, nil
	}
}

// daemonJSON puts mirrors first into a daemon.json. Docker needs no
// insecure-registries for them: it speaks the scheme that their URLs have.
func daemonJSON(mirrors []string) Edit {
	return func(theirs []byte) (Change, error) {
		after, put, err := putIntoList(theirs, mirrorsKey, mirrors)
		if errors.Is(err, errUnproven) {
			return Change{}, Blocked{Problem: err.Error(), Mend: "put this in by hand", Lines: quote(mirrorsKey) + ": " + quoteAll(mirrors)}
		}
		if err != nil || len(put) == 0 {
			return Change{Content: theirs}, err
		}
		return Change{Content: after, Undo: Undo{Kind: undoLists, Lists: map[string][]string{mirrorsKey: put}}}, nil
	}
}

// dockerMirrors are the URLs under which requests without a registry's name are
// for docker.io. Docker's registry-mirrors stand for it alone, and its older
// image store does not say so in its requests.
func (s Setting) dockerMirrors() ([]string, error) {
	const newer = "; or tell --version 29 if it is that or later, which names every registry"
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
			return fmt.Errorf("%s names no mirror", s.below("daemon.json"))
		case !slices.ContainsFunc(mirrors, func(m string) bool { return sameMirror(m, list[0]) }):
			return fmt.Errorf("%s names %s first", s.below("daemon.json"), list[0])
		}
		return nil
	}()
	if s.Version.Known() {
		return daemon
	}
	// Of an unknown version both have to be right, as far as it asks at all.
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
