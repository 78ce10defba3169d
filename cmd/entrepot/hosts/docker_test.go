package hosts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// caFile is a file with a certificate.
func caFile(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestADaemonJSONIsMergedInto(t *testing.T) {
	for _, c := range []struct{ name, there, want string }{
		{"empty", "", "{\n  \"registry-mirrors\": [\n    \"http://mirror.lan:5000\"\n  ]\n}\n"},
		{"an object without keys", "{}", "{\n  \"registry-mirrors\": [\"http://mirror.lan:5000\"]\n}"},
		{"other keys", "{\n    \"debug\": true,\n    \"a\": 1e3\n}\n", "{\n    \"registry-mirrors\": [\"http://mirror.lan:5000\"],\n    \"debug\": true,\n    \"a\": 1e3\n}\n"},
		{"in one line", `{"debug":true}`, `{"registry-mirrors": ["http://mirror.lan:5000"], "debug":true}`},
		{"mirrors of theirs", "{\n  \"registry-mirrors\": [\n    \"https://office/\"\n  ]\n}", "{\n  \"registry-mirrors\": [\n    \"http://mirror.lan:5000\",\n    \"https://office/\"\n  ]\n}"},
		{"mirrors in one line", `{"registry-mirrors":["https://office"]}`, `{"registry-mirrors":["http://mirror.lan:5000", "https://office"]}`},
		{"an empty list", `{"registry-mirrors": [ ], "x": "\u00e9"}`, `{"registry-mirrors": ["http://mirror.lan:5000"], "x": "\u00e9"}`},
		{"no list", `{"registry-mirrors": null}`, `{"registry-mirrors": ["http://mirror.lan:5000"]}`},
		{"the same in a value", `{"x": {"registry-mirrors": ["a"]}, "y": "\"registry-mirrors\": []"}`, `{"registry-mirrors": ["http://mirror.lan:5000"], "x": {"registry-mirrors": ["a"]}, "y": "\"registry-mirrors\": []"}`},
		{"ours by hand", `{"registry-mirrors": ["http://mirror.lan:5000/", "https://office"]}`, `{"registry-mirrors": ["http://mirror.lan:5000/", "https://office"]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t, map[string]string{"/etc/docker/daemon.json": c.there})
			m := mirrorOf(t, upstream("docker.io"), upstream("ghcr.io"))
			p.write("docker", m, "28.5.2")
			got := p.get("/etc/docker/daemon.json")
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if right, said := p.check("docker", m, "28.5.2"); !right || !strings.Contains(said, "ghcr.io: this runtime never asks for it through a mirror\n") {
				t.Error(said)
			}
			// Edited since in a place that does not matter: ours alone goes.
			p.put("/etc/docker/daemon.json", got+"\n")
			if err := p.remove("docker", m, "28.5.2"); err != nil {
				t.Fatal(err)
			}
			before, err := readObject([]byte(c.there))
			if err != nil {
				t.Fatal(err)
			}
			if list, _ := before["registry-mirrors"].([]any); len(list) == 0 {
				delete(before, "registry-mirrors")
			}
			after := map[string]any{}
			if _, there := p.all()["etc/docker/daemon.json"]; there {
				after, err = readObject([]byte(p.get("/etc/docker/daemon.json")))
			}
			if err != nil || !reflect.DeepEqual(before, after) {
				t.Errorf("%v, left is %v, want %v", err, after, before)
			}
		})
	}
}

func TestADaemonJSONThatCantBeKeptIsRefused(t *testing.T) {
	for there, want := range map[string]string{
		"# a comment\n{}":                   "/etc/docker/daemon.json: it is not a JSON object (invalid character '#' looking for beginning of value); correct it first",
		"[]":                                "it is not a JSON object",
		"null":                              "it is not a JSON object",
		"{} {}":                             "something follows its JSON object",
		`{"registry-mirrors": "https://a"}`: `"registry-mirrors" is not a list of strings`,
		`{"registry-mirrors": [1]}`:         `"registry-mirrors" is not a list of strings`,
		`{"registry-mirrors": [], "a": 1,}`: "it is not a JSON object",
		"\xef\xbb\xbf{\"debug\": true}":     "it begins with a byte order mark; save it as UTF-8 without one",
	} {
		p := newPlace(t, map[string]string{"/etc/docker/daemon.json": there})
		if got := p.refused("docker", mirrorOf(t, upstream("docker.io")), "28"); !strings.Contains(got, want) {
			t.Errorf("%q: got %s\nwant %s", there, got, want)
		}
	}
}

// A hosts.toml that names a mirror takes the place of what daemon.json says of
// that registry.
func TestWhatDaemonJSONSaysGoesOnBesideAHostsTOML(t *testing.T) {
	p := newPlace(t, map[string]string{"/etc/docker/daemon.json": `{"registry-mirrors": ["https://office/", "https://10.0.0.7:5000"], "insecure-registries": ["corp.lan:5000", "10.0.0.0/8"]}`})
	before := p.get("/etc/docker/daemon.json")
	m := mirrorOf(t, upstream("docker.io"), upstream("corp.lan:5000"), upstream("10.1.2.3:5000"), upstream("ghcr.io"))
	p.write("docker", m, "29")
	const ours = "[host.\"http://mirror.lan:5000\"]\n  capabilities = [\"pull\", \"resolve\", \"referrers\"]\n  dial_timeout = \"1s\"\n"
	for registry, want := range map[string]string{
		"docker.io": "server = \"https://registry-1.docker.io\"\n\n" + ours +
			strings.Replace(ours, "http://mirror.lan:5000", "https://office", 1) +
			strings.Replace(ours, "http://mirror.lan:5000", "https://10.0.0.7:5000", 1) + "  skip_verify = true\n",
		"corp.lan:5000": "server = \"http://corp.lan:5000\"\nskip_verify = true\n\n" + ours,
		"10.1.2.3:5000": "server = \"http://10.1.2.3:5000\"\nskip_verify = true\n\n" + ours,
		"ghcr.io":       "server = \"https://ghcr.io\"\n\n" + ours,
	} {
		if got := p.get("/etc/docker/certs.d/" + registry + "/hosts.toml"); got != marked("docker", want) {
			t.Errorf("%s: got\n%s\nwant\n%s", registry, got, want)
		}
	}
	if p.get("/etc/docker/daemon.json") != before {
		t.Error("daemon.json is changed")
	}
	p.put("/etc/docker/certs.d/corp.lan:5000/hosts.toml", "server = \"https://corp.lan:5000\"\n")
	if got := p.refused("docker", m, "29"); !strings.Contains(got, "corp.lan:5000 is one of Docker's insecure-registries, which no longer counts once a hosts.toml names a mirror; set the same there, and run this again:\n    server = \"http://corp.lan:5000\"\n    skip_verify = true") {
		t.Error(got)
	}
}

// Of an unknown version both forms are written, and the second time what is
// ours in daemon.json is not taken for theirs.
func TestOurOwnMirrorIsNotCarriedOver(t *testing.T) {
	p := newPlace(t, map[string]string{"/etc/docker/daemon.json": `{"registry-mirrors": ["https://office"]}`})
	m := mirrorOf(t, upstream("docker.io"))
	p.write("docker", m, "")
	moved := mirrorOf(t, upstream("docker.io"))
	moved.Addresses[0].Host = "moved.lan:5000"
	p.write("docker", moved, "")
	for _, path := range []string{"/etc/docker/daemon.json", "/etc/docker/certs.d/docker.io/hosts.toml"} {
		if got := p.get(path); strings.Contains(got, "mirror.lan") || !strings.Contains(got, "moved.lan") || !strings.Contains(got, "office") {
			t.Errorf("%s is\n%s", path, got)
		}
	}
	if right, said := p.check("docker", moved, ""); !right {
		t.Error(said)
	}
}

func TestDockerBelievesTheMirrorByACertificateBesideIt(t *testing.T) {
	m := mirrorOf(t, upstream("docker.io"))
	m.Addresses[0].Scheme, m.CAFile = "https", caFile(t)
	p := newPlace(t, nil)
	before := p.all()
	p.write("docker", m, "20.10")
	ca, err := os.ReadFile(m.CAFile)
	if err != nil || p.get("/etc/docker/certs.d/mirror.lan:5000/entrepot.crt") != string(ca) {
		t.Errorf("%v, %q", err, p.all())
	}
	if err := p.remove("docker", m, "20.10"); err != nil || !maps.Equal(before, p.all()) {
		t.Errorf("%v, left is %q", err, p.all())
	}
}

func TestDockerIsAskedWhatItSaysOfDaemonJSON(t *testing.T) {
	p := newPlace(t, map[string]string{"/etc/docker/daemon.json": `{"registry-mirrors": ["http://mirror.lan:5000"], "storage-driver": 1}`})
	p.Output = func(_ context.Context, program string, args ...string) (string, error) {
		if program != "dockerd" || args[0] != "--validate" {
			t.Errorf("%s %q is run", program, args)
		}
		return "cannot unmarshal number", errors.New("exit status 1")
	}
	m := mirrorOf(t, upstream("docker.io"))
	if right, said := p.check("docker", m, "28"); right || !strings.Contains(said, "dockerd --validate --config-file /etc/docker/daemon.json: cannot unmarshal number\n") {
		t.Error(said)
	}
}

func TestAnOldDockerSaysNothingOfDaemonJSON(t *testing.T) {
	p := newPlace(t, map[string]string{"/etc/docker/daemon.json": `{"registry-mirrors": ["http://mirror.lan:5000"]}`})
	p.Output = func(context.Context, string, ...string) (string, error) {
		return "Status: unknown flag: --validate", errors.New("exit status 125")
	}
	if right, said := p.check("docker", mirrorOf(t, upstream("docker.io")), "20.10"); !right || !strings.Contains(said, "dockerd before 23 can't say whether its files are right\n") {
		t.Error(said)
	}
}

func TestADockerThatIsFoundMayKeepItsOldStore(t *testing.T) {
	p := newPlace(t, nil)
	r, _ := Find("docker")
	p.Output = func(context.Context, string, ...string) (string, error) {
		return "Docker version 29.1.3, build f52814d", nil
	}
	found := r.FindVersion(t.Context(), p.Machine)
	s, err := r.NewSetting(mirrorOf(t, upstream("docker.io")), found, p.Machine, "")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := r.PlanWrite(s)
	if err != nil || len(plan.Steps) != 2 {
		t.Errorf("%v, %+v", err, plan.Steps)
	}
}

func TestADockerThatIsToldByAFlagIsNotToldTwice(t *testing.T) {
	p := newPlace(t, nil)
	p.Running = func(string) [][]string { return [][]string{{"-H", "fd://"}, {"--registry-mirror=https://office"}} }
	m := mirrorOf(t, upstream("docker.io"))
	if got := p.refused("docker", m, "28"); !strings.Contains(got, "/etc/docker/daemon.json: Docker is started with --registry-mirror") {
		t.Error(got)
	}
	p.write("docker", m, "29")
}

func TestACertificateOfTheSameNameIsNotReplaced(t *testing.T) {
	m := mirrorOf(t, upstream("docker.io"))
	m.Addresses[0].Scheme, m.CAFile = "https", caFile(t)
	p := newPlace(t, map[string]string{"/etc/docker/certs.d/mirror.lan:5000/entrepot.crt": "theirs"})
	if got := p.refused("docker", m, "28"); !strings.Contains(got, "/etc/docker/certs.d/mirror.lan:5000/entrepot.crt: the file exists and was not made by entrepot") {
		t.Error(got)
	}
}

// A reload takes over the mirrors that daemon.json names, and keeps those that it
// names no more.
func TestDockerIsToRestartOnceMirrorsAreTakenOut(t *testing.T) {
	r, _ := Find("docker")
	if !strings.Contains(r.Restart, "systemctl reload docker") || !strings.Contains(r.AfterRemove(), "systemctl restart docker") {
		t.Errorf("%s; %s", r.Restart, r.AfterRemove())
	}
}
