package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
)

var helmKinds = []kind{
	{name: "Helm charts, signed by Helm 3", client: "Helm 3", tool: "helm3", push: helm3.push, take: helm3.take},
	{name: "Helm charts, signed by Helm 4", client: "Helm 4", tool: "helm4", push: helm4.push, take: helm4.take},
}

// helm is an installed Helm.
type helm struct {
	tool string
	// asks says that it asks a cluster even with --dry-run=client.
	asks bool
}

var helm3, helm4 = helm{tool: "helm3", asks: true}, helm{tool: "helm4"}

func (h helm) helm(e *errand, args ...string) (string, error) {
	return e.run(h.tool, "helm", args...)
}

// chart is what Helm packages.
var chart = map[string]string{
	"Chart.yaml":            "apiVersion: v2\nname: app\nversion: 1.2.3\n",
	"values.yaml":           "greeting: hello\n",
	"files/song":            noise("a song", 300_000),
	"templates/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\ndata: {greeting: {{ .Values.greeting }}}\n",
}

// push packages a chart, signs it with a key made here, and pushes both.
func (h helm) push(e *errand) error {
	for file, content := range chart {
		if _, err := e.write(filepath.Join("app", file), content); err != nil {
			return err
		}
	}
	if err := e.keyRings("signer"); err != nil {
		return err
	}
	if _, err := h.helm(e, "package", "app", "--sign", "--key", "signer", "--keyring", "secret.gpg"); err != nil {
		return err
	}
	for _, file := range chartFiles {
		content, err := os.ReadFile(filepath.Join(e.dir, file))
		if err != nil {
			return err
		}
		e.notes[file] = string(content)
	}
	_, err := h.helm(e, "push", "app-1.2.3.tgz", "oci://"+e.ref("charts"), "--plain-http")
	return err
}

// chartFiles are the chart and its signature.
var chartFiles = []string{"app-1.2.3.tgz", "app-1.2.3.tgz.prov"}

// keyRings makes a key, and writes the two rings that Helm reads.
func (e *errand) keyRings(owner string) error {
	key, err := openpgp.NewEntity(owner, "", owner+"@example.org", nil)
	if err != nil {
		return err
	}
	secret, err := os.Create(filepath.Join(e.dir, "secret.gpg"))
	if err != nil {
		return err
	}
	defer secret.Close()
	public, err := os.Create(filepath.Join(e.dir, "public.gpg"))
	if err != nil {
		return err
	}
	defer public.Close()
	return errors.Join(key.SerializePrivate(secret, nil), key.Serialize(public))
}

// take pulls the chart with its signature and verifies it, and renders what
// would be installed.
func (h helm) take(e *errand) error {
	into, err := e.empty("taken")
	if err != nil {
		return err
	}
	from := []string{"oci://" + e.ref("charts/app"), "--version", "1.2.3", "--plain-http", "--verify", "--keyring", "public.gpg"}
	// Helm 4 keeps what it has pulled.
	if _, err := e.empty(".cache"); err != nil {
		return err
	}
	if _, err := h.helm(e, append([]string{"pull", "--destination", into}, from...)...); err != nil {
		return err
	}
	for _, file := range chartFiles {
		err = errors.Join(err, same(filepath.Join(into, file), e.notes[file]))
	}
	if err != nil {
		return err
	}
	if _, err := e.empty(".cache"); err != nil {
		return err
	}
	install := []string{"install", "release", "--dry-run=client", "--set", "greeting=howdy"}
	if h.asks {
		asked := httptest.NewServer(http.HandlerFunc(cluster))
		defer asked.Close()
		install = append(install, "--kube-apiserver", asked.URL, "--disable-openapi-validation")
	}
	out, err := h.helm(e, append(install, from...)...)
	if err == nil && !strings.Contains(out, "metadata: {name: release}\ndata: {greeting: howdy}\n") {
		err = fmt.Errorf("what would be installed is %s", out)
	}
	return err
}

// cluster answers as Kubernetes does that has no ConfigMap yet.
func cluster(w http.ResponseWriter, r *http.Request) {
	answers := map[string]string{
		"/version": `{"major": "1", "minor": "34", "gitVersion": "v1.34.0"}`,
		"/api":     `{"kind": "APIVersions", "versions": ["v1"]}`,
		"/apis":    `{"kind": "APIGroupList", "apiVersion": "v1", "groups": []}`,
		"/api/v1":  `{"kind": "APIResourceList", "groupVersion": "v1", "resources": [{"name": "configmaps", "namespaced": true, "kind": "ConfigMap", "verbs": ["get"]}]}`,
	}
	w.Header().Set("Content-Type", "application/json")
	answer, ok := answers[r.URL.Path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		answer = `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}`
	}
	_, _ = io.WriteString(w, answer) // Helm sees where it fails.
}
