package hosts

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// registriesConf configures CRI-O, Podman, skopeo and buildah, which share
// containers-registries.conf(5), version 2.
//
// If several files have an entry with the same prefix, the file that is read
// last counts, and its entry replaces the others as a whole. So entrepot's
// mirrors go into an existing entry, before its mirrors, and a drop-in has the
// rest. Entries in files that this user can't change are copied into the
// drop-in, because they would no longer count.
func registriesConf(name string) Runtime {
	r := Runtime{
		Name:   name,
		Shares: "podman",
		Place: func(m Machine) string {
			return m.Own("/etc/containers/registries.conf.d", "containers/registries.conf.d")
		},
		Files: registriesConfFiles,
		Comes: registriesConfComes,
		Down: func(Version) string {
			return "nothing where the connection is refused, 120 s a pull where its machine is gone, for as long as it hangs"
		},
		Restart: "nothing; a Podman service or CRI-O that is running: systemctl restart podman, systemctl reload crio",
	}
	switch name {
	case "crio":
		r.Restart = "systemctl reload crio"
	case "podman":
		r.Ask = podmanAsk
	}
	return r
}

const dropIn = "entrepot.conf"

func registriesConfFiles(s Setting) (Layout, error) {
	var layout Layout
	if s.DirGiven && !strings.HasSuffix(filepath.Base(s.Dir), ".conf.d") {
		return layout, Blocked{
			Path: s.Dir, Problem: "no client reads a drop-in there", Fix: "name the folder registries.conf.d: --write " + filepath.Join(s.Dir, "registries.conf.d"),
		}
	}
	if m := s.Mirror.nameable(); len(m.Addresses) < len(s.Mirror.Addresses) {
		if len(m.Addresses) == 0 {
			return layout, Wrong("no image name can hold an IPv6 address for Podman and related clients, and every pull would fail: give another address with --address")
		}
		layout.Notes = append(layout.Notes, "IPv6 addresses are left out: no image name can hold them")
		s.Mirror = m
	}
	confs, err := s.readConfs()
	if err != nil {
		return layout, err
	}
	edits := map[string]confEdit{} // by file
	var ours strings.Builder
	for _, r := range s.Mirror.Registries {
		mirrors := s.Mirror.locationsOf(r)
		if len(mirrors) == 0 {
			layout.Notes = append(layout.Notes, r.Name+" is left out: no image name can hold it; give it an alias")
			fmt.Fprintf(&ours, "# %s is left out: no image name can hold it. Give it an alias.\n", r.Name)
			continue
		}
		if path, ok := confs.blocks(r.Name); ok {
			// Mirrors of a blocked registry are used, so a mirror would unblock
			// it.
			layout.Notes = append(layout.Notes, r.Name+" stays as it is: it is blocked in "+path)
			continue
		}
		inPlace := false
		for _, c := range confs.all {
			if i := c.indexOf(r.Name); i >= 0 && c.own {
				edits[c.path] = append(edits[c.path], addition{prefix: r.Name, mirrors: mirrors})
				inPlace = true
			}
		}
		if inPlace {
			continue
		}
		entry, note, err := s.dropInEntry(confs, r, mirrors)
		if err != nil {
			return layout, err
		}
		if note != "" {
			layout.Notes = append(layout.Notes, note)
		}
		if ours.Len() > 0 {
			ours.WriteString("\n")
		}
		ours.WriteString(entry)
	}
	for i, folder := range s.dropInFolders() {
		path := filepath.Join(folder, dropIn)
		if ours.Len() > 0 {
			layout.Files = append(layout.Files, File{Path: path, Edit: marksAlone("podman", ours.String()), Extra: i > 0})
		}
	}
	for _, c := range confs.all {
		if edit := edits[c.path]; edit != nil {
			layout.Files = append(layout.Files, File{Path: c.path, Edit: edit.edit, Extra: true})
		}
	}
	files, notes, err := s.hostCAs()
	layout.Files, layout.Notes = append(layout.Files, files...), append(layout.Notes, notes...)
	return layout, err
}

// marksAlone returns the edit for a file that is entrepot's, in a format with
// comments. Lines that somebody else has added stay after entrepot's.
func marksAlone(runtime, text string) Edit {
	return func(theirs []byte) (Change, error) {
		return Change{Content: append([]byte(marked(runtime, text)), theirs...), Undo: Undo{Kind: undoMarked}}, nil
	}
}

// nameable returns the mirror without addresses that an image name can't
// contain. One such address makes the whole pull fail, not only the mirror.
func (m Mirror) nameable() Mirror {
	m.Addresses = slices.DeleteFunc(slices.Clone(m.Addresses), func(a *url.URL) bool { return strings.HasPrefix(a.Host, "[") })
	return m
}

// location is the place of a mirror, and whether it uses plain HTTP.
type location struct {
	at       string
	insecure bool
}

func (l location) text() string {
	text := "[[registry.mirror]]\nlocation = " + quote(l.at) + "\n"
	if l.insecure {
		text += "insecure = true\n"
	}
	return text
}

// textOf returns mirrors as text, each after an empty line.
func textOf(mirrors []location) string {
	var b strings.Builder
	for _, mirror := range mirrors {
		b.WriteString("\n" + mirror.text())
	}
	return b.String()
}

func (l location) value() map[string]any {
	value := map[string]any{"location": l.at}
	if l.insecure {
		value["insecure"] = true
	}
	return value
}

// locationsOf returns locations with the registry's name in them, because these
// clients do not send ?ns=.
func (m Mirror) locationsOf(r Registry) []location {
	var all []location
	if strings.HasPrefix(r.Name, "[") {
		return nil
	}
	if r.Prefix != "" {
		for _, address := range m.Addresses {
			all = append(all, location{address.Host + "/" + r.Prefix, address.Scheme == "http"})
		}
		return all
	}
	for _, address := range m.AtVirtualHost(r) {
		all = append(all, location{address.Host, address.Scheme == "http"})
	}
	return all
}

// dropInEntry returns the entry for a registry that has no entry which this
// user can change.
func (s Setting) dropInEntry(confs registryConfs, r Registry, mirrors []location) (text, note string, err error) {
	their, ok := confs.newer().of(r.Name)
	if !ok {
		text, note = r.entry(mirrors)
		return text, note, nil
	}
	text, err = their.carriedOver(r.Name, mirrors)
	if err != nil {
		return "", "", err
	}
	if their.exact && their.dropIn && filepath.Base(their.path) > dropIn {
		return "", "", Blocked{
			Path: their.path, Problem: "it has an entry for " + r.Name + ", and is read after " + dropIn + " in Podman 6",
			Fix: "have it replaced by this, or remove the entry", Lines: text,
		}
	}
	return text, fmt.Sprintf("%s: %s has the entry of %s for %s, which no longer counts: make later changes here too", r.Name, dropIn, their.path, their.prefix), nil
}

// entry returns the entry for a registry without existing settings.
func (r Registry) entry(mirrors []location) (text, note string) {
	location, insecure := r.Name, false
	switch {
	case r.Server.Known: // clients translate docker.io in the name, not in the location
	case r.Name == dockerHub && r.Server.Place.String() == "https://"+dockerHubServer:
	case r.Server.Base != "" || strings.Contains(r.Server.Place.Prefix, ":") || strings.HasPrefix(r.Server.Host, "["):
		note = r.Name + " itself is left out: no location can be at " + r.Server.API()
		text = "# " + note + ".\n"
	case r.Server.Place.Prefix != "":
		location, insecure = r.Server.Host+"/"+r.Server.Place.Prefix, r.Server.Scheme == "http"
	default:
		location, insecure = r.Server.Host, r.Server.Scheme == "http"
	}
	text += "[[registry]]\nprefix = " + quote(r.Name) + "\nlocation = " + quote(location) + "\n"
	if insecure || r.Server.Insecure {
		text += "insecure = true\n"
	}
	return text + textOf(mirrors), note
}

// registriesConfComes checks the entry that counts, in the order of Podman 6
// and in that of earlier versions.
func registriesConfComes(s Setting, r Registry) error {
	s.state, s.asIs = state{}, true
	mirrors := s.Mirror.nameable().locationsOf(r)
	if len(mirrors) == 0 {
		return fmt.Errorf("no image name can hold it: %w", errNotAsked)
	}
	confs, err := s.readConfs()
	if err != nil {
		return err
	}
	for _, files := range []confList{confs.newer(), confs.older()} {
		entry, ok := files.of(r.Name)
		if !ok {
			return errors.New("no file that is read has an entry for it")
		}
		list := entry.mirrors()
		switch {
		case entry.table["blocked"] == true && len(list) == 0:
			return fmt.Errorf("it is blocked in %s: %w", entry.path, errNotAsked)
		case len(list) == 0:
			return fmt.Errorf("%s lists no mirror", entry.path)
		case entry.table["mirror-by-digest-only"] == true:
			return fmt.Errorf("%s has mirror-by-digest-only: pulls by tag do not use a mirror", entry.path)
		}
		at, _ := list[0]["location"].(string)
		if !slices.ContainsFunc(mirrors, func(l location) bool {
			return l.at == at+r.Name[len(entry.prefix):] || l.at == strings.TrimRight(at, "/")
		}) {
			return fmt.Errorf("%s lists %s first", entry.path, at)
		}
	}
	return nil
}

// podmanAsk makes Podman read its files.
func podmanAsk(ctx context.Context, s Setting) (Verdict, error) {
	if s.DirGiven {
		return Verdict{}, nil
	}
	v := Verdict{Asked: "podman info"}
	said, err := s.Machine.Output(ctx, "podman", "info", "--format", "{{json .Registries}}")
	if errors.Is(err, ErrNotInstalled) {
		return Verdict{}, err
	}
	if err != nil {
		v.Said = said
	}
	return v, nil
}
