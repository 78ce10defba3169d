package hosts

import (
	"encoding/base64"
	"net/url"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/entrepot/entrepot/config"
)

// corpMirror has two addresses, certificates, and a registry below a path.
func corpMirror(t *testing.T) (m Mirror, pem string) {
	t.Helper()
	ca := caFile(t)
	corp := upstream("corp.lan")
	corp.TLS = config.UpstreamTLS{CAFile: ca, InsecureSkipVerify: true}
	m, err := NewMirror([]config.Upstream{upstream("docker.io"), corp, upstream("quay.io", "https://harbor.lan/v2/quay")}, Settings{
		CAFile: ca, Addresses: []*url.URL{{Scheme: "https", Host: "a.lan"}, {Scheme: "http", Host: "b.lan:5000"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	return m, string(content)
}

func printed(t *testing.T, runtime string, m Mirror, version string) Printed {
	t.Helper()
	r, s := newPlace(t, nil).setting(runtime, m, version)
	p, err := r.Print(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTalosBefore112GetsAPatch(t *testing.T) {
	m, pem := corpMirror(t)
	for _, version := range []string{"", "1.11"} {
		p := printed(t, "talos", m, version)
		if told := strings.Contains(strings.Join(p.Notes, "\n"), "without --version"); told != (version == "") {
			t.Errorf("notes for %q are %q", version, p.Notes)
		}
		got, err := readYAML([]byte(p.Text))
		if err != nil {
			t.Fatal(err)
		}
		certificate := base64.StdEncoding.EncodeToString([]byte(pem))
		want := map[string]any{"machine": map[string]any{"registries": map[string]any{
			"mirrors": map[string]any{
				"docker.io": map[string]any{"endpoints": []any{"https://a.lan", "http://b.lan:5000"}},
				"corp.lan":  map[string]any{"endpoints": []any{"https://a.lan", "http://b.lan:5000", "https://corp.lan"}},
				"quay.io":   map[string]any{"endpoints": []any{"https://a.lan/v2", "http://b.lan:5000/v2", "https://harbor.lan/v2/quay"}, "overridePath": true},
			},
			"config": map[string]any{
				"a.lan":    map[string]any{"tls": map[string]any{"ca": certificate}},
				"corp.lan": map[string]any{"tls": map[string]any{"ca": certificate, "insecureSkipVerify": true}},
			},
		}}}
		if !sameTOML(got, want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
	}
}

func TestTalosFrom112GetsADocumentForEachRegistry(t *testing.T) {
	m, pem := corpMirror(t)
	decoder := yaml.NewDecoder(strings.NewReader(printed(t, "talos", m, "1.12").Text))
	mirror := func(name string, more ...any) map[string]any {
		return map[string]any{
			"apiVersion": "v1alpha1", "kind": "RegistryMirrorConfig", "name": name, "skipFallback": false,
			"endpoints": append([]any{map[string]any{"url": "https://a.lan"}, map[string]any{"url": "http://b.lan:5000"}}, more...),
		}
	}
	certificate := strings.TrimSpace(pem)
	for _, want := range []map[string]any{
		mirror("docker.io"),
		mirror("corp.lan", map[string]any{"url": "https://corp.lan"}),
		mirror("quay.io", map[string]any{"url": "https://harbor.lan/v2/quay", "overridePath": true}),
		{"apiVersion": "v1alpha1", "kind": "RegistryTLSConfig", "name": "a.lan", "ca": certificate},
		{"apiVersion": "v1alpha1", "kind": "RegistryTLSConfig", "name": "corp.lan", "ca": certificate, "insecureSkipVerify": true},
	} {
		var got map[string]any
		if err := decoder.Decode(&got); err != nil || !sameTOML(got, want) {
			t.Errorf("%v, got %v\nwant %v", err, got, want)
		}
	}
	if err := decoder.Decode(&map[string]any{}); err == nil {
		t.Error("there are more")
	}
}
