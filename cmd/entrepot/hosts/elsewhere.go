package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// errElsewhere means that nothing on this machine shows whether pulls come
// here.
var errElsewhere = errors.New("that depends on where this is applied, which can't be checked from here")

// elsewhere returns the runtimes that are not configured by files on a machine.
// Their settings are printed as text, ready to be applied.
func elsewhere() []Runtime {
	return []Runtime{
		readyText("openshift", "entrepot-mirrors.yaml", Mirror.openShift,
			"nothing else, after: oc apply -f entrepot-mirrors.yaml (nodes apply it one after the other)",
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

// readyText returns a runtime whose settings are text that has to be applied by
// hand.
func readyText(name, file string, text func(Mirror) (string, []string, error), restart, down string) Runtime {
	return Runtime{
		Name:      name,
		Elsewhere: true,
		Place:     func(Machine) string { return "." },
		Files: func(s Setting) (Layout, error) {
			m := s.Mirror.nameable()
			if len(m.Addresses) == 0 {
				return Layout{}, Wrong("no image name can hold an IPv6 address for " + name + ": give another address with --address")
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

// plainHosts returns entrepot's hosts that use plain HTTP.
func (m Mirror) plainHosts() []string {
	var all []string
	for _, address := range m.Addresses {
		if address.Scheme == "http" {
			all = append(all, address.Host)
		}
	}
	return all
}

// eachByPath calls a function for each registry that a path can name, and
// returns notes about the others.
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

// openShift needs one object for pulls by tag and one for pulls by digest.
// OpenShift makes the registries.conf of each node from them.
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
		notes = append(notes, host+" is only reached by plain HTTP if it is in spec.registrySources.insecureRegistries of image.config.openshift.io/cluster")
	}
	if m.CAFile != "" {
		notes = append(notes, "the CA of entrepot's certificate has to be in the ConfigMap that spec.additionalTrustedCA of image.config.openshift.io/cluster names: "+m.CAFile)
	}
	return b.String(), notes, nil
}

// bottlerocket makes containerd's mirrors from these settings. They name the
// registry by ?ns=.
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
		notes = append(notes, "add the CA of entrepot's certificate to settings.pki, in base64: "+m.CAFile)
	}
	return b.String(), notes, nil
}

// hubForGo is the name of docker.io in go-containerregistry. Trivy and Kaniko
// look up its mirrors by it.
const hubForGo = "index.docker.io"

func nameForGo(r Registry) string {
	if r.Name == dockerHub {
		return hubForGo
	}
	return r.Name
}

// trivy downloads its databases from the same mirrors as images.
func (m Mirror) trivy() (string, []string, error) {
	var b strings.Builder
	b.WriteString("registry:\n  mirrors:\n")
	notes := m.eachByPath(func(r Registry, mirrors []string) {
		b.WriteString("    " + quote(nameForGo(r)) + ":\n" + itemsAt(mirrors, 6))
	})
	if hosts := m.plainHosts(); len(hosts) > 0 {
		notes = append(notes, strings.Join(hosts, " and ")+" use plain HTTP: Trivy allows that for private addresses only, unless it gets --insecure, which turns off all certificate checks")
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
		notes = append(notes, "plain HTTP needs another flag: --insecure-registry="+host)
	}
	for _, address := range m.Addresses {
		if address.Scheme == "https" && m.CAFile != "" {
			notes = append(notes, "the CA of entrepot's certificate needs another flag: --registry-certificate="+address.Host+"="+m.CAFile)
		}
	}
	return "export KANIKO_REGISTRY_MAP=" + quote(strings.Join(maps, ";")) + "\n", notes, nil
}

// crossplane replaces the name of a package's registry. There can be only one.
func (m Mirror) crossplane() (string, []string, error) {
	var documents []string
	notes := m.eachByPath(func(r Registry, mirrors []string) {
		name := strings.NewReplacer(".", "-", ":", "-", "_", "-").Replace(r.Name)
		documents = append(documents, "apiVersion: pkg.crossplane.io/v1beta1\nkind: ImageConfig\nmetadata:\n  name: entrepot-"+name+
			"\nspec:\n  matchImages:\n    - type: Prefix\n      prefix: "+quote(r.Name+"/")+"\n  rewriteImage:\n    prefix: "+quote(mirrors[0]+"/")+"\n")
	})
	if len(m.Addresses) > 1 {
		notes = append(notes, "only "+m.Addresses[0].String()+" is used: there can be only one")
	}
	if hosts := m.plainHosts(); len(hosts) > 0 {
		notes = append(notes, "Crossplane uses HTTPS: plain HTTP works for private addresses only")
	}
	return strings.Join(documents, "---\n"), notes, nil
}

// renovate looks up images at the alias. The names in the files that it changes
// stay as they are.
func (m Mirror) renovate() (string, []string, error) {
	aliases := map[string]string{}
	notes := m.eachByPath(func(r Registry, mirrors []string) { aliases[r.Name] = mirrors[0] })
	settings := map[string]any{"registryAliases": aliases}
	if m.Addresses[0].Scheme == "http" {
		settings["hostRules"] = []any{map[string]any{"hostType": "docker", "matchHost": m.Addresses[0].Host, "insecureRegistry": true}}
	}
	notes = append(notes, "images whose name has no registry are still looked up at docker.io")
	content, err := json.MarshalIndent(settings, "", "  ")
	return string(content) + "\n", notes, err
}
