package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// errElsewhere means that nothing on this machine says whether a pull comes
// here.
var errElsewhere = errors.New("what counts is where this is put, which can't be seen from here")

// elsewhere are runtimes whose settings are put in by other means than a file
// on a machine: what is made for them is ready text.
func elsewhere() []Runtime {
	return []Runtime{
		readyText("openshift", "entrepot-mirrors.yaml", Mirror.openShift,
			"nothing beside: oc apply -f entrepot-mirrors.yaml (nodes take it over one after the other)",
			"nothing where the connection is refused, 120 s a pull where its machine is gone, for as long as it hangs"),
		readyText("bottlerocket", "user-data.toml", Mirror.bottlerocket,
			"nothing, as user data of new machines or through apiclient apply",
			"nothing where the connection is refused, 30 s a request where its machine is gone or it hangs (before containerd 2.3 for as long as it hangs)"),
		readyText("trivy", "trivy.yaml", Mirror.trivy, "nothing", "nothing where the connection is refused; minutes where its machine is gone or it hangs"),
		readyText("kaniko", "kaniko.sh", Mirror.kaniko, "nothing", "nothing where the connection is refused, 30 s a request where its machine is gone"),
		readyText("crossplane", "imageconfigs.yaml", Mirror.crossplane, "nothing, after: kubectl apply -f imageconfigs.yaml",
			"no package is fetched while entrepot is down: its name is replaced, and there is no fallback"),
		readyText("renovate", "renovate.json", Mirror.renovate, "nothing", "no look-up of an image works while entrepot is down: its name is replaced, and there is no fallback"),
	}
}

// readyText is a runtime that is told nothing but by what somebody puts there.
func readyText(name, file string, text func(Mirror) (string, []string, error), restart, down string) Runtime {
	return Runtime{
		Name:      name,
		Elsewhere: true,
		Place:     func(Machine) string { return "." },
		Files: func(s Setting) (Layout, error) {
			m := s.Mirror.nameable()
			if len(m.Addresses) == 0 {
				return Layout{}, Wrong("no image name can hold an IPv6 address for " + name + ": name entrepot otherwise with --address")
			}
			content, notes, err := text(m)
			if err != nil {
				return Layout{}, err
			}
			edit := alone(name, content)
			if strings.HasSuffix(file, ".json") {
				edit = wholly([]byte(content))
			}
			return Layout{Files: []File{{Path: s.below(file), Edit: edit}}, Notes: notes}, nil
		},
		Comes:   func(Setting, Registry) error { return errElsewhere },
		Down:    func(Version) string { return down },
		Restart: restart,
	}
}

// plainHosts are entrepot's hosts that are asked by plain HTTP.
func (m Mirror) plainHosts() []string {
	var all []string
	for _, address := range m.Addresses {
		if address.Scheme == "http" {
			all = append(all, address.Host)
		}
	}
	return all
}

// eachByPath calls for each registry that a path can name, and says of others
// that they are left out.
func (m Mirror) eachByPath(do func(r Registry, mirrors []string)) (notes []string) {
	for _, r := range m.Registries {
		if r.Prefix == "" {
			notes = append(notes, r.Name+" is left out: no path can name it; give it an alias")
			continue
		}
		var mirrors []string
		for _, address := range m.Addresses {
			mirrors = append(mirrors, address.Host+"/"+r.Prefix)
		}
		do(r, mirrors)
	}
	return notes
}

// openShift has one object for what is pulled by tag and one for what is pulled
// by digest, from which each node's registries.conf is made.
func (m Mirror) openShift() (string, []string, error) {
	var b strings.Builder
	var notes []string
	for i, kind := range []string{"Tag", "Digest"} {
		if i > 0 {
			b.WriteString("---\n")
		}
		fmt.Fprintf(&b, "apiVersion: config.openshift.io/v1\nkind: Image%sMirrorSet\nmetadata:\n  name: entrepot\nspec:\n  image%sMirrors:\n", kind, kind)
		notes = m.eachByPath(func(r Registry, mirrors []string) {
			b.WriteString("    - source: " + quote(r.Name) + "\n      mirrorSourcePolicy: AllowContactingSource\n      mirrors:\n" + itemsAt(mirrors, 8))
		})
	}
	for _, host := range m.plainHosts() {
		notes = append(notes, host+" is asked by plain HTTP where it is in spec.registrySources.insecureRegistries of image.config.openshift.io/cluster")
	}
	if m.CAFile != "" {
		notes = append(notes, "who signed entrepot's certificate has to be in the ConfigMap that spec.additionalTrustedCA of image.config.openshift.io/cluster names: "+m.CAFile)
	}
	return b.String(), notes, nil
}

// bottlerocket writes containerd's mirrors from it, which say by ?ns= which
// registry is meant.
func (m Mirror) bottlerocket() (string, []string, error) {
	var b strings.Builder
	for i, r := range m.Registries {
		if i > 0 {
			b.WriteString("\n")
		}
		var urls []string
		for _, endpoint := range m.endpoints(r) {
			urls = append(urls, endpoint.url)
		}
		b.WriteString("[[settings.container-registry.mirrors]]\nregistry = " + quote(r.Name) + "\nendpoint = " + quoteAll(urls) + "\n")
	}
	var notes []string
	if m.CAFile != "" {
		notes = append(notes, "who signed entrepot's certificate goes into settings.pki, in base64: "+m.CAFile)
	}
	return b.String(), notes, nil
}

// hubForGo is docker.io's name in go-containerregistry, by which Trivy and
// Kaniko look for a mirror.
const hubForGo = "index.docker.io"

func nameForGo(r Registry) string {
	if r.Name == dockerHub {
		return hubForGo
	}
	return r.Name
}

// trivy takes its databases from the same mirrors as images.
func (m Mirror) trivy() (string, []string, error) {
	var b strings.Builder
	b.WriteString("registry:\n  mirrors:\n")
	notes := m.eachByPath(func(r Registry, mirrors []string) {
		b.WriteString("    " + quote(nameForGo(r)) + ":\n" + itemsAt(mirrors, 6))
	})
	if hosts := m.plainHosts(); len(hosts) > 0 {
		notes = append(notes, strings.Join(hosts, " and ")+" by plain HTTP: Trivy does that for private addresses alone, unless it is told --insecure, which checks no certificate of anybody")
	}
	return b.String(), notes, nil
}

// kaniko reads the map from the environment as well as from its flag.
func (m Mirror) kaniko() (string, []string, error) {
	var maps []string
	notes := m.eachByPath(func(r Registry, mirrors []string) {
		for _, mirror := range mirrors {
			maps = append(maps, nameForGo(r)+"="+mirror)
		}
	})
	for _, host := range m.plainHosts() {
		notes = append(notes, "plain HTTP wants a flag besides: --insecure-registry="+host)
	}
	for _, address := range m.Addresses {
		if address.Scheme == "https" && m.CAFile != "" {
			notes = append(notes, "who signed entrepot's certificate wants a flag besides: --registry-certificate="+address.Host+"="+m.CAFile)
		}
	}
	return "export KANIKO_REGISTRY_MAP=" + quote(strings.Join(maps, ";")) + "\n", notes, nil
}

// crossplane replaces the name of a package's registry; there is one only.
func (m Mirror) crossplane() (string, []string, error) {
	var documents []string
	notes := m.eachByPath(func(r Registry, mirrors []string) {
		name := strings.NewReplacer(".", "-", ":", "-", "_", "-").Replace(r.Name)
		documents = append(documents, "apiVersion: pkg.crossplane.io/v1beta1\nkind: ImageConfig\nmetadata:\n  name: entrepot-"+name+
			"\nspec:\n  matchImages:\n    - type: Prefix\n      prefix: "+quote(r.Name+"/")+"\n  rewriteImage:\n    prefix: "+quote(mirrors[0]+"/")+"\n")
	})
	if len(m.Addresses) > 1 {
		notes = append(notes, "only "+m.Addresses[0].String()+" is named: there can be one")
	}
	if hosts := m.plainHosts(); len(hosts) > 0 {
		notes = append(notes, "Crossplane asks by HTTPS: plain HTTP works for private addresses alone")
	}
	return strings.Join(documents, "---\n"), notes, nil
}

// renovate looks images up where an alias says; the files that it changes keep
// their names.
func (m Mirror) renovate() (string, []string, error) {
	aliases := map[string]string{}
	notes := m.eachByPath(func(r Registry, mirrors []string) { aliases[r.Name] = mirrors[0] })
	settings := map[string]any{"registryAliases": aliases}
	if m.Addresses[0].Scheme == "http" {
		settings["hostRules"] = []any{map[string]any{"hostType": "docker", "matchHost": m.Addresses[0].Host, "insecureRegistry": true}}
	}
	notes = append(notes, "images whose name has no registry are looked up at docker.io as ever")
	content, err := json.MarshalIndent(settings, "", "  ")
	return string(content) + "\n", notes, err
}
