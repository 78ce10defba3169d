package hosts

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// containerd configures a hosts.toml for each registry. CRI reads them if
// config_path in its config.toml names their folder, ctr with --hosts-dir, and
// nerdctl always.
func containerd() Runtime {
	return Runtime{
		Name:    "containerd",
		Program: []string{"containerd", "--version"},
		Version: func(text string) (Version, error) {
			v, ok := ParseVersion(text)
			if !ok || v.Minor == latest {
				return Version{}, errors.New("is not a version such as 2.2") // 2.1 and 2.2 differ, so "2" is not enough
			}
			return v, nil
		},
		Place:   func(m Machine) string { return m.Own("/etc/containerd/certs.d", "containerd/certs.d") },
		Files:   containerdFiles,
		Comes:   containerdComes,
		Ask:     containerdAsk,
		Down:    containerdDown,
		Restart: "nothing for the files below certs.d, which are read at each pull; after a change of config.toml: systemctl restart containerd",
	}
}

func containerdFiles(s Setting) (Layout, error) {
	var layout Layout
	config, err := s.containerdConfig()
	if err != nil {
		return layout, err
	}
	if s.DirGiven && config.named != nil && !slices.Contains(config.named, s.Dir) {
		return layout, Blocked{
			Path: config.path, Problem: "config_path names " + strings.Join(config.named, " and ") + ", and containerd's CRI looks only there",
			Fix: "write to that folder: --write " + config.named[0],
		}
	}
	if !s.Version.Known() {
		layout.Notes = append(layout.Notes, `without --version these files grant no "referrers", so containerd 2.2 and later ask the registry itself for signatures and attestations: give the version to change that`)
	}
	if !s.Version.Known() && slices.ContainsFunc(s.Mirror.Addresses, isIPv6) {
		layout.Notes = append(layout.Notes, "without --version these files write IPv6 addresses in the form of containerd 2.0 and later: older versions ignore such a file, and --version gives their form")
	}
	for _, r := range s.Mirror.Registries {
		h := hostsTOML{
			runtime: "containerd", registry: r, mirror: s.Mirror, referrers: s.Version.AtLeast(2, 2), dotted: s.readsDotted(),
		}
		var file File
		var notes []string
		if config.older.says(r.Name) {
			file, err = config.older.moved(s, config, r.Name, &h)
		} else {
			file, notes, err = s.hostsFile(config.roots, h)
		}
		if err != nil {
			return layout, err
		}
		layout.Files, layout.Notes = append(layout.Files, file), append(layout.Notes, notes...)
	}
	if names := config.older.names(); names != nil {
		files, err := config.older.files(s, config)
		if err != nil {
			return layout, err
		}
		layout.Files = append(layout.Files, files...)
		layout.Notes = append(layout.Notes, fmt.Sprintf("%s of %s move into files below %s: with them and config_path containerd would not load CRI", strings.Join(names, ", "), config.path, config.roots[0]))
	}
	layout.Notes = append(layout.Notes, config.notes...)
	if config.edit != nil {
		layout.Files = append(layout.Files, File{Path: config.path, Edit: config.edit, Extra: true})
	}
	return layout, nil
}

// readsDotted says that hosts which are written as keys with dots are read.
func (s Setting) readsDotted() bool { return s.Version.Known() && !s.Version.AtLeast(2, 0) }

// containerdComes checks the folder that containerd reads.
func containerdComes(s Setting, r Registry) error {
	config, err := s.containerdConfig()
	if err != nil {
		return err
	}
	roots := config.roots
	if config.belongs && config.edit != nil || config.named != nil {
		now, err := s.criNow(config.path)
		if err != nil {
			return err
		}
		var works bool
		switch roots, _, works = s.criRoots(now); {
		case len(roots) == 0:
			return fmt.Errorf("CRI does not look into %s: config_path is not set in %s", s.Dir, config.path)
		case !works:
			return fmt.Errorf("CRI does not look into %s: config_path of %s lists several folders, and %s", strings.Join(roots, " and "), config.path, listIsOne)
		}
	}
	return comesByHosts(roots, s.Mirror, r, s.readsDotted())
}

func containerdAsk(ctx context.Context, s Setting) (Verdict, error) {
	config, err := s.containerdConfig()
	if err != nil || !config.belongs {
		return Verdict{}, err
	}
	if content, err := readFile(config.path); err != nil || content == nil {
		return Verdict{}, err
	}
	main := filepath.Join(filepath.Dir(s.Dir), "config.toml")
	v := Verdict{Asked: "containerd --config " + main + " config dump"}
	said, err := s.Machine.Output(ctx, "containerd", "--config", main, "config", "dump")
	if errors.Is(err, ErrNotInstalled) {
		return Verdict{}, err
	}
	if err != nil {
		v.Said = said
		return v, nil //nolint:nilerr // the failure is part of the result
	}
	now, err := s.criNow(config.path)
	if err != nil {
		return Verdict{}, err
	}
	set, _ := lookUp(now, append(criSection(now), "registry", "config_path")...).(string)
	if set != "" && !strings.Contains(said, set) {
		v.Said = "another file of containerd's configuration overrides config_path of " + config.path
	}
	return v, nil
}

// containerdDown depends on the library: versions from 2.1 on know
// dial_timeout, and versions from 2.3 on wait at most 30 s for a response.
func containerdDown(v Version) string {
	gone, hung := "1 s", "30 s a request where it hangs"
	switch {
	case !v.Known():
		gone += " (30 s before 2.1)"
		hung += " (before 2.3 for as long as it hangs)"
	case !v.AtLeast(2, 1):
		gone = "30 s"
	}
	if v.Known() && !v.AtLeast(2, 3) {
		hung = "as long as it hangs where it does"
		if v.AtLeast(1, 7) {
			hung += " (CRI gives the pull up after its image_pull_progress_timeout)"
		}
	}
	return "nothing where the connection is refused, " + gone + " a request where its machine is gone, " + hung
}
