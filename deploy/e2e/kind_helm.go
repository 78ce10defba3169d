package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"helm.sh/helm/v3/pkg/provenance"
	"helm.sh/helm/v3/pkg/registry"
)

// Helm 3 is not built beside Helm 4: all that it asks of registries is in one
// package of its own, which is used here.
var helmKinds = []kind{
	{name: "Helm charts, signed by Helm 3", client: "Helm 3's library", tool: "helm.sh/helm/v3", push: pushByLibrary, take: takeByLibrary},
	{name: "Helm charts, signed by Helm 4", client: "Helm 4", tool: "helm4", push: pushChart, take: takeChart},
}

func (e *errand) helm(args ...string) (string, error) { return e.run("helm4", "helm", args...) }

// chart is what Helm packages.
var chart = map[string]string{
	"Chart.yaml":            "apiVersion: v2\nname: app\nversion: 1.2.3\n",
	"values.yaml":           "greeting: hello\n",
	"files/song":            noise("a song", 300_000),
	"templates/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\ndata: {greeting: {{ .Values.greeting }}}\n",
}

// packChart has Helm make a chart of the files, with a key beside it to sign by.
func (e *errand) packChart(more ...string) error {
	for file, content := range chart {
		if _, err := e.write(filepath.Join("app", file), content); err != nil {
			return err
		}
	}
	if err := e.keyRings("signer"); err != nil {
		return err
	}
	_, err := e.helm(append([]string{"package", "app"}, more...)...)
	return err
}

// noteChart notes what has to arrive.
func (e *errand) noteChart() error {
	for _, file := range chartFiles {
		content, err := os.ReadFile(filepath.Join(e.dir, file))
		if err != nil {
			return err
		}
		e.notes[file] = string(content)
	}
	return nil
}

// pushChart packages a chart, signs it with a key made here, and pushes both.
func pushChart(e *errand) error {
	if err := e.packChart("--sign", "--key", "signer", "--keyring", "secret.gpg"); err != nil {
		return err
	}
	if err := e.noteChart(); err != nil {
		return err
	}
	_, err := e.helm("push", "app-1.2.3.tgz", "oci://"+e.ref("charts"), "--plain-http")
	return err
}

// pushByLibrary does the same with what Helm 3 signs and pushes by.
func pushByLibrary(e *errand) error {
	if err := e.packChart(); err != nil {
		return err
	}
	packed := filepath.Join(e.dir, chartFiles[0])
	signer, err := provenance.NewFromKeyring(filepath.Join(e.dir, "secret.gpg"), "signer")
	if err != nil {
		return err
	}
	signature, err := signer.ClearSign(packed)
	if err != nil {
		return err
	}
	if _, err := e.write(chartFiles[1], signature); err != nil {
		return err
	}
	if err := e.noteChart(); err != nil {
		return err
	}
	client, err := e.helm3()
	if err != nil {
		return err
	}
	_, err = client.Push([]byte(e.notes[chartFiles[0]]), e.ref("charts/app:1.2.3"), registry.PushOptProvData([]byte(signature)))
	return err
}

func (e *errand) helm3() (*registry.Client, error) {
	return registry.NewClient(registry.ClientOptPlainHTTP(), registry.ClientOptWriter(io.Discard),
		registry.ClientOptCredentialsFile(filepath.Join(e.dir, "helm3.json")))
}

// takeByLibrary is "helm pull --verify".
func takeByLibrary(e *errand) error {
	into, err := e.empty("taken")
	if err != nil {
		return err
	}
	client, err := e.helm3()
	if err != nil {
		return err
	}
	pulled, err := client.Pull(e.ref("charts/app:1.2.3"), registry.PullOptWithChart(true), registry.PullOptWithProv(true))
	if err != nil {
		return err
	}
	if pulled.Chart.Meta.Name != "app" || pulled.Chart.Meta.Version != "1.2.3" {
		err = fmt.Errorf("the chart is %+v", pulled.Chart.Meta)
	}
	for i, content := range [][]byte{pulled.Chart.Data, pulled.Prov.Data} {
		file := filepath.Join(into, chartFiles[i])
		err = errors.Join(err, os.WriteFile(file, content, 0o644), same(file, e.notes[chartFiles[i]]))
	}
	if err != nil {
		return err
	}
	verifier, err := provenance.NewFromKeyring(filepath.Join(e.dir, "public.gpg"), "")
	if err != nil {
		return err
	}
	_, err = verifier.Verify(filepath.Join(into, chartFiles[0]), filepath.Join(into, chartFiles[1]))
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

// takeChart pulls the chart with its signature and verifies it, and renders what
// would be installed.
func takeChart(e *errand) error {
	into, err := e.empty("taken")
	if err != nil {
		return err
	}
	from := []string{"oci://" + e.ref("charts/app"), "--version", "1.2.3", "--plain-http", "--verify", "--keyring", "public.gpg"}
	// Helm 4 keeps what it has pulled.
	if _, err := e.empty(".cache"); err != nil {
		return err
	}
	if _, err := e.helm(append([]string{"pull", "--destination", into}, from...)...); err != nil {
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
	out, err := e.helm(append([]string{"install", "release", "--dry-run=client", "--set", "greeting=howdy"}, from...)...)
	if err == nil && !strings.Contains(out, "metadata: {name: release}\ndata: {greeting: howdy}\n") {
		err = fmt.Errorf("what would be installed is %s", out)
	}
	return err
}
