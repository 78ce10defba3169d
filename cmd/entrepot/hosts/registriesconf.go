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

// registriesConf is what CRI-O, Podman, skopeo and buildah share:
// containers-registries.conf(5), version 2.
//
// Of an entry with the same prefix the file that is read last has the word, as
// a whole. So where people have one, our mirrors go into theirs, before their
// own; a drop-in has the rest. What is in files that are not this user's is
// carried over into the drop-in, for it would count no more beside it.
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
	if s.Told && !strings.HasSuffix(filepath.Base(s.Dir), ".conf.d") {
		return layout, Blocked{
			Path: s.Dir, Problem: "nothing reads a drop-in there", Mend: "name the folder registries.conf.d: --write " + filepath.Join(s.Dir, "registries.conf.d"),
		}
	}
	if m := s.Mirror.nameable(); len(m.Addresses) < len(s.Mirror.Addresses) {
		if len(m.Addresses) == 0 {
			return layout, Wrong("no image name can hold an IPv6 address for Podman and its kin, and every pull would fail: name entrepot otherwise with --address")
		}
		layout.Notes = append(layout.Notes, "addresses of IPv6 are left out: no image name can hold them")
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
			// A mirror is asked all the same: it would unblock the registry.
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
			layout.Files = append(layout.Files, File{Path: path, Edit: marksAlone("podman", ours.String()), Aside: i > 0})
		}
	}
	for _, c := range confs.all {
		if edit := edits[c.path]; edit != nil {
			layout.Files = append(layout.Files, File{Path: c.path, Edit: edit.edit, Aside: true})
		}
	}
	files, notes, err := s.hostCAs()
	layout.Files, layout.Notes = append(layout.Files, files...), append(layout.Notes, notes...)
	return layout, err
}

// marksAlone is a file of a format with comments that is ours; what somebody
// else has put into it stays behind ours.
func marksAlone(runtime, text string) Edit {
	return func(theirs []byte) (Change, error) {
		return Change{Content: append([]byte(marked(runtime, text)), theirs...), Undo: Undo{Kind: undoMarked}}, nil
	}
}

// nameable is the mirror without the addresses that no image name can hold:
// one of these makes the whole pull fail, and not only the mirror.
func (m Mirror) nameable() Mirror {
	m.Addresses = slices.DeleteFunc(slices.Clone(m.Addresses), func(a *url.URL) bool { return strings.HasPrefix(a.Host, "[") })
	return m
}

// location is a mirror: where it is, and whether that is plain HTTP.
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

// textOf are mirrors, each with an empty line before it.
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

// locationsOf have the registry's name in them: these clients send no ?ns=.
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

// dropInEntry is the entry for a registry that people have none for where this
// user could change it.
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
			Mend: "have this put in its place, or take the entry out", Lines: text,
		}
	}
	return text, fmt.Sprintf("%s: %s has what %s says of %s, which counts for it no more: what changes there has to change here", r.Name, dropIn, their.path, their.prefix), nil
}

// entry is what stands for a registry of which nobody has said anything.
func (r Registry) entry(mirrors []location) (text, note string) {
	location, insecure := r.Name, false
	switch {
	case r.Server.Known: // docker.io is translated behind the location, not in it
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

// registriesConfComes judges by the last word of the files as they are, in the
// order of Podman 6 and in that of those before.
func registriesConfComes(s Setting, r Registry) error {
	s.kept, s.asIs = state{}, true
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
			return fmt.Errorf("%s names no mirror", entry.path)
		case entry.table["mirror-by-digest-only"] == true:
			return fmt.Errorf("%s has mirror-by-digest-only: what is pulled by tag does not ask a mirror", entry.path)
		}
		at, _ := list[0]["location"].(string)
		if !slices.ContainsFunc(mirrors, func(l location) bool {
			return l.at == at+r.Name[len(entry.prefix):] || l.at == strings.TrimRight(at, "/")
		}) {
			return fmt.Errorf("%s names %s first", entry.path, at)
		}
	}
	return nil
}

// podmanAsk has Podman read its files.
func podmanAsk(ctx context.Context, s Setting) (Verdict, error) {
	if s.Told {
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
