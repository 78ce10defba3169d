package hosts

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/config"
)

const certsD = "/etc/containerd/certs.d"

const host = "[host.\"http://mirror.lan:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"1s\"\n"

func TestAHostsTOMLIsMergedInto(t *testing.T) {
	corp := upstream("corp.lan:5000")
	for _, c := range []struct {
		name     string
		upstream config.Upstream
		files    map[string]string
		path     string // below certs.d
		want     string
	}{
		{
			"nothing there", corp, nil, "corp.lan:5000",
			marked("containerd", "server = \"https://corp.lan:5000\"\n\n"+host),
		},
		{
			"certificates that counted by being there", corp,
			map[string]string{"corp.lan:5000/a.crt": "a", "corp.lan:5000/b.crt": "b", "corp.lan:5000/me.cert": "c", "corp.lan:5000/me.key": "d", "corp.lan:5000/both.cert": "e"},
			"corp.lan:5000",
			marked("containerd", "server = \"https://corp.lan:5000\"\nca = [\"a.crt\", \"b.crt\"]\nclient = [\"both.cert\", [\"me.cert\", \"me.key\"]]\n\n"+host),
		},
		{
			"the folder that wins", corp, map[string]string{"corp.lan_5000_/ca.crt": "a", "corp.lan:5000/ca.crt": "b"}, "corp.lan_5000_",
			marked("containerd", "server = \"https://corp.lan:5000\"\nca = [\"ca.crt\"]\n\n"+host),
		},
		{
			"a server and mirrors of theirs, with comments", corp,
			map[string]string{"corp.lan:5000/hosts.toml": "# us\nserver = \"https://corp.lan:5000\" # the one\nca = \"ca.crt\"\n\n# the office\n[host.\"https://office\"]\n  capabilities = [\"pull\"]\n"},
			"corp.lan:5000",
			"# us\nserver = \"https://corp.lan:5000\" # the one\nca = \"ca.crt\"\n\n" + marked("containerd", host) + "# the office\n[host.\"https://office\"]\n  capabilities = [\"pull\"]\n",
		},
		{
			"no table, and no end of line", corp, map[string]string{"corp.lan:5000/hosts.toml": "skip_verify = true"}, "corp.lan:5000",
			"skip_verify = true\n" + marked("containerd", host),
		},
		{
			"a table of the server's headers first", corp, map[string]string{"corp.lan:5000/hosts.toml": "[header]\n  a = \"b\"\n[host.\"https://office\"]\n"}, "corp.lan:5000",
			marked("containerd", host) + "[header]\n  a = \"b\"\n[host.\"https://office\"]\n",
		},
		{
			"ours by hand", corp, map[string]string{"corp.lan:5000/hosts.toml": "[host.\"http://mirror.lan:5000\"]\n  capabilities = [\"pull\"]\n"}, "corp.lan:5000",
			"[host.\"http://mirror.lan:5000\"]\n  capabilities = [\"pull\"]\n",
		},
		{
			"mirrors for every registry", corp, map[string]string{"_default/hosts.toml": "[host.\"https://office\"]\n  ca = \"/ca.pem\"\n"}, "corp.lan:5000",
			marked("containerd", host+"[host.\"https://office\"]\n  ca = \"/ca.pem\"\n"),
		},
		{
			"another folder of theirs that is empty", corp, map[string]string{"_default/other/x": ""}, "corp.lan:5000",
			marked("containerd", "server = \"https://corp.lan:5000\"\n\n"+host),
		},
		{
			"a certificate that entrepot knows", config.Upstream{Name: "corp.lan:5000", Endpoints: []string{"https://in.corp.lan"}, TLS: config.UpstreamTLS{InsecureSkipVerify: true}},
			nil, "corp.lan:5000",
			marked("containerd", "server = \"https://in.corp.lan\"\nskip_verify = true\n\n"+host),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{}
			for name, content := range c.files {
				files[certsD+"/"+name] = content
			}
			p := newPlace(t, files)
			p.write("containerd", mirrorOf(t, c.upstream), "2.1")
			if got := p.get(certsD + "/" + c.path + "/hosts.toml"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestAHostsTOMLThatCantBeKeptIsRefused(t *testing.T) {
	for _, c := range []struct{ name, file, content, want string }{
		{"not TOML", "corp.lan/hosts.toml", "server = \n", "/etc/containerd/certs.d/corp.lan/hosts.toml: line 1 is not TOML"},
		{"hosts in one line", "corp.lan/hosts.toml", "host = {\"https://office\" = {}}\n", "hosts.toml: the file is written in a form to which nothing can be added; write each host as a separate table, or add this before the first by hand:\n    [host.\"http://mirror.lan:5000\"]"},
		{"for every registry, with names of its own folder", "_default/hosts.toml", "ca = \"ca.pem\"\n", "/etc/containerd/certs.d/_default/hosts.toml: it names the file \"ca.pem\" without its folder; use absolute paths"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t, map[string]string{certsD + "/" + c.file: c.content})
			if got := p.refused("containerd", mirrorOf(t, upstream("corp.lan")), "2.1"); !strings.Contains(got, c.want) {
				t.Errorf("got %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestACertificateInDockersFolderStillCounts(t *testing.T) {
	p := newPlace(t, map[string]string{"/etc/docker/certs.d/corp.lan/ca.crt": "a"})
	p.write("containerd", mirrorOf(t, upstream("corp.lan")), "2.2")
	if got := p.get(certsD + "/corp.lan/hosts.toml"); !strings.Contains(got, "ca = [\""+p.System("/etc/docker/certs.d/corp.lan/ca.crt")+"\"]\n") {
		t.Errorf("got\n%s", got)
	}
}

func TestAnHTTPSMirrorIsBelievedByItsOwnCA(t *testing.T) {
	p := newPlace(t, nil)
	m := mirrorOf(t, upstream("corp.lan"))
	m.Addresses[0].Scheme, m.CAFile = "https", caFile(t)
	p.write("containerd", m, "2.1")
	if got := p.get(certsD + "/corp.lan/hosts.toml"); !strings.HasSuffix(strings.TrimSuffix(got, "# Made by \"entrepot hosts containerd\": end\n"), "  ca = \""+m.CAFile+"\"\n") {
		t.Errorf("got\n%s", got)
	}
}

func TestCRIIsToldWhereToLook(t *testing.T) {
	const v2, v3 = `[plugins."io.containerd.grpc.v1.cri".registry]`, `[plugins."io.containerd.cri.v1.images".registry]`
	for _, c := range []struct{ name, version, config, want string }{
		{"as 1.6 ships it", "1.6", "version = 2\n[plugins]\n  " + v2 + "\n    config_path = \"\"\n\n    [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors]\n",
			"version = 2\n[plugins]\n  " + v2 + "\n" + "BEGIN\n" + "# instead of:     config_path = \"\"\n    config_path = \"CERTS\"\n" + "END\n" + "\n    [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors]\n"},
		{"as 2.0 ships it", "2.0", "version = 3\n" + v3 + "\n  config_path = ''\n", "version = 3\n" + v3 + "\n" + "BEGIN\n" + "# instead of:   config_path = ''\n  config_path = \"CERTS\"\n" + "END\n"},
		{"of an unknown version", "", "version = 2\n", "version = 2\n" + "BEGIN\n" + v2 + "\n  config_path = \"CERTS\"\n" + "END\n"},
		{"as Debian ships it", "1.6", "version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".cni]\n      bin_dir = \"/x\"\n",
			"version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".cni]\n      bin_dir = \"/x\"\n" + "BEGIN\n" + v2 + "\n  config_path = \"CERTS\"\n" + "END\n"},
		{"of version 1", "1.6", "[plugins.cri.registry]\n  x = 1\n", "[plugins.cri.registry]\n" + "BEGIN\n" + "  config_path = \"CERTS\"\n" + "END\n" + "  x = 1\n"},
		{"with CRI off, as Docker ships it", "1.7", "disabled_plugins = [\"cri\"]\n", "disabled_plugins = [\"cri\"]\n"},
		{"that is right", "1.7", "version = 2\n" + v2 + "\nconfig_path = \"CERTS\"\n", "version = 2\n" + v2 + "\nconfig_path = \"CERTS\"\n"},
		{"that means to look there, and does not", "2.2", "version = 3\n", "version = 3\n" + "BEGIN\n" + v3 + "\n  config_path = \"CERTS\"\n" + "END\n"},
		{"that does look there", "2.2", "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\nuse_local_image_pull = true\n", "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\nuse_local_image_pull = true\n"},
		{"of version 2 that does look there", "2.3", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndiscard_unpacked_layers = true\n", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndiscard_unpacked_layers = true\n"},
		{"that is told not to look", "2.2", "version = 3\n" + v3 + "\nconfig_path = ''\n", "version = 3\n" + v3 + "\n" + "BEGIN\n" + "# instead of: config_path = ''\nconfig_path = \"CERTS\"\n" + "END\n"},
		{"with a list that is none", "2.4", "version = 3\n" + v3 + "\nconfig_path = 'CERTS:DOCKER'\n", "version = 3\n" + v3 + "\n" + "BEGIN\n" + "# instead of: config_path = 'CERTS:DOCKER'\nconfig_path = \"CERTS\"\n" + "END\n"},
		{"with a list that is one", "1.7", "version = 2\n" + v2 + "\nconfig_path = 'CERTS:DOCKER'\n", "version = 2\n" + v2 + "\nconfig_path = 'CERTS:DOCKER'\n"},
		{"with a list, of an unknown version", "", "version = 2\n" + v2 + "\nconfig_path = 'CERTS:DOCKER'\n", "version = 2\n" + v2 + "\nconfig_path = 'CERTS:DOCKER'\n"},
		{"of none, 2.4", "2.4", "", "BEGIN\n" + "version = 3\n\n" + v3 + "\n  config_path = \"CERTS\"\n" + "END\n"},
		{"of none, before 2.0", "1.7", "", "BEGIN\n" + "version = 2\n\n" + v2 + "\n  config_path = \"CERTS\"\n" + "END\n"},
		{"of none, 2.1", "2.1", "", "BEGIN\n" + "version = 3\n\n" + v3 + "\n  config_path = \"CERTS\"\n" + "END\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t, nil)
			for from, to := range map[string]string{"CERTS": certsD, "DOCKER": dockerCerts} {
				c.config, c.want = strings.ReplaceAll(c.config, from, p.System(to)), strings.ReplaceAll(c.want, from, p.System(to))
			}
			c.want = withMarks(c.want)
			if c.config != "" {
				p.put("/etc/containerd/config.toml", c.config)
			}
			m := mirrorOf(t, upstream("docker.io"))
			p.write("containerd", m, c.version)
			if got := p.get("/etc/containerd/config.toml"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			right, said := p.check("containerd", m, c.version)
			if !right {
				t.Errorf("pulls don't come:\n%s", said)
			}
			if err := p.remove("containerd", m, c.version); err != nil {
				t.Fatal(err)
			}
			if _, there := p.all()["etc/containerd/config.toml"]; there != (c.config != "") || there && p.get("/etc/containerd/config.toml") != c.config {
				t.Errorf("it is not given back")
			}
		})
	}
}

// withMarks puts marks in place of BEGIN and END.
func withMarks(text string) string {
	before, rest, ok := strings.Cut(text, "BEGIN\n")
	if !ok {
		return text
	}
	lines, after, _ := strings.Cut(rest, "END\n")
	return before + marked("containerd", lines) + after
}

const olderConfig = `version = 2
# the office
[plugins."io.containerd.grpc.v1.cri".registry]

  [plugins."io.containerd.grpc.v1.cri".registry.mirrors]
    # first ours
    [plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
      endpoint = ["https://office:5000/v2/hub", "http://b.lan"]
    [plugins."io.containerd.grpc.v1.cri".registry.mirrors."quay.io"]
      endpoint = ["https://office:5000"]
  [plugins."io.containerd.grpc.v1.cri".registry.configs."office:5000".tls]
    ca_file = "/office.pem"

  [plugins."io.containerd.grpc.v1.cri".registry.configs."office:5000".auth]
    username = "me" # and nobody else
  [plugins."io.containerd.grpc.v1.cri".registry.configs."corp.lan:5443".tls]
    insecure_skip_verify = true
    cert_file = "/c.pem"
    key_file = "/c.key"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
`

func TestTheOlderFormMovesIntoHostsTOML(t *testing.T) {
	p := newPlace(t, map[string]string{"/etc/containerd/config.toml": olderConfig})
	before := p.all()
	m := mirrorOf(t, upstream("docker.io"), upstream("corp.lan:5443"), upstream("ghcr.io"))
	plan := p.write("containerd", m, "1.7")
	if !strings.Contains(strings.ReplaceAll(strings.Join(plan.Notes, "\n"), p.Root, ""), "mirrors.\"docker.io\", mirrors.\"quay.io\", configs.\"corp.lan:5443\".tls, configs.\"office:5000\".tls of /etc/containerd/config.toml move into files") {
		t.Errorf("notes are %q", plan.Notes)
	}
	read, err := readTOML([]byte(p.get("/etc/containerd/config.toml")))
	if err != nil {
		t.Fatal(err)
	}
	registry := map[string]any{
		"config_path": p.System(certsD),
		"configs":     map[string]any{"office:5000": map[string]any{"auth": map[string]any{"username": "me"}}},
	}
	if got := removeOlder(read); !sameTOML(got, map[string]any{"version": int64(2), "plugins": map[string]any{"io.containerd.grpc.v1.cri": map[string]any{
		"registry": registry, "containerd": map[string]any{"snapshotter": "native"},
	}}}) {
		t.Errorf("config.toml is %v", got)
	}
	const office = "[host.\"https://office:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"/office.pem\"\n"
	for name, want := range map[string]string{
		"docker.io":     "5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"1s\"\n[host.\"https://office:5000/v2/hub\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n  ca = \"/office.pem\"\n\n[host.\"http://b.lan\"]\n",
		"corp.lan:5443": "begin\nclient = [[\"/c.pem\", \"/c.key\"]]\nskip_verify = true\n[host.\"http://mirror.lan:5000\"]\n",
		"quay.io":       "begin\n" + office,
		"office:5000":   "begin\nca = \"/office.pem\"\n# Made",
		"ghcr.io":       "begin\nserver = \"https://ghcr.io\"\n",
	} {
		got := regexp.MustCompile("begin [0-9a-f]+").ReplaceAllString(p.get(certsD+"/"+name+"/hosts.toml"), "begin")
		if !strings.Contains(got, want) {
			t.Errorf("%s has\n%s\nwant\n%s", name, got, want)
		}
	}
	if right, said := p.check("containerd", m, "1.7"); !right {
		t.Error(said)
	}
	again := p.all()
	p.write("containerd", m, "1.7")
	if !maps.Equal(again, p.all()) {
		t.Errorf("written again: %q", p.all())
	}
	// Lines of theirs that came later stay, and so does what was moved.
	p.put("/etc/containerd/config.toml", p.get("/etc/containerd/config.toml")+"# later\n")
	if err := p.remove("containerd", m, "1.7"); err != nil || p.get("/etc/containerd/config.toml") != olderConfig+"# later\n" {
		t.Errorf("%v, it is\n%s", err, p.get("/etc/containerd/config.toml"))
	}
	p.put("/etc/containerd/config.toml", olderConfig)
	p.write("containerd", m, "1.7")
	if err := p.remove("containerd", m, "1.7"); err != nil || !maps.Equal(before, p.all()) {
		t.Errorf("%v, %q, want %q", err, p.all(), before)
	}
}

func TestTheNodeIsNotTakenDown(t *testing.T) {
	const table = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n"
	for _, c := range []struct{ name, there, also, want string }{
		{
			"in one line", table + "mirrors = {\"docker.io\" = {endpoint = [\"https://office:5000/hub\"]}}\nconfigs.\"office:5000\".tls.ca_file = \"/office.pem\"\n", "",
			"its older registry settings (mirrors.\"docker.io\", configs.\"office:5000\".tls) can't be combined with config_path: containerd would not load CRI, and the node would have no images; move them into files with these names, remove them there, and run this again:\n" +
				"    # /etc/containerd/certs.d/docker.io/hosts.toml\n    [host.\"https://office:5000/hub\"]\n      capabilities = [\"pull\", \"resolve\"]\n      override_path = true\n      ca = \"/office.pem\"\n    # /etc/containerd/certs.d/office:5000/hosts.toml\n    ca = \"/office.pem\"",
		},
		{"a mirror that is no URL", table + "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"office:5000\"]\n", "", "the mirror \"office:5000\" is not a URL; correct it first"},
		{"a hosts.toml that nothing reads", olderConfig, "/etc/containerd/certs.d/docker.io/hosts.toml", "/etc/containerd/certs.d/docker.io: containerd has not read it so far, and the older settings for docker.io in /etc/containerd/config.toml have to go there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{"/etc/containerd/config.toml": c.there}
			if c.also != "" {
				files[c.also] = "server = \"https://other\"\n"
			}
			p := newPlace(t, files)
			if got := p.refused("containerd", mirrorOf(t, upstream("docker.io")), "1.7"); !strings.Contains(got, c.want) {
				t.Errorf("got %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestTheFileThatHasTheLastWordOnCRIIsTheOneThatIsEdited(t *testing.T) {
	const main, other = "version = 2\nimports = [\"conf.d/*.toml\"]\n", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n"
	p := newPlace(t, map[string]string{"/etc/containerd/config.toml": main, "/etc/containerd/conf.d/a.toml": other, "/etc/containerd/conf.d/b.toml": "version = 2\n"})
	p.write("containerd", mirrorOf(t, upstream("docker.io")), "1.7")
	if p.get("/etc/containerd/config.toml") != main || !strings.Contains(p.get("/etc/containerd/conf.d/a.toml"), "config_path") {
		t.Errorf("%q", p.all())
	}
}

func TestTheFolderThatCRILooksIntoIsWrittenTo(t *testing.T) {
	p := newPlace(t, nil)
	p.put("/etc/containerd/config.toml", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \""+p.System("/srv/hosts")+"\"\n")
	m := mirrorOf(t, upstream("docker.io"))
	p.write("containerd", m, "1.7")
	p.get("/srv/hosts/docker.io/hosts.toml")
	if right, said := p.check("containerd", m, "1.7"); !right {
		t.Error(said)
	}
	r, _ := Find("containerd")
	s, err := r.NewSetting(m, Version{Major: 1, Minor: 7}, p.Machine, p.System(certsD))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.PlanWrite(s); err == nil || !strings.Contains(err.Error(), "write to that folder: --write "+p.System("/srv/hosts")) {
		t.Errorf("another folder: %v", err)
	}
}

func TestCheckSaysWhatDoesNotComeHere(t *testing.T) {
	m := mirrorOf(t, upstream("docker.io"), upstream("ghcr.io"), upstream("quay.io"), upstream("gcr.io"))
	p := newPlace(t, nil)
	p.write("containerd", m, "1.7")
	p.put(certsD+"/ghcr.io/hosts.toml", "[host.\"https://push\"]\n  capabilities = [\"push\"]\n[host.\"https://office\"]\n[host.\"http://mirror.lan:5000\"]\n")
	p.put(certsD+"/quay.io_443_/hosts.toml", "") // of another registry
	p.put(certsD+"/quay.io/hosts.toml", "server = \"https://quay.io\"\n")
	p.put(certsD+"/gcr.io/hosts.toml", "server = \n")
	right, said := p.check("containerd", m, "1.7")
	want := "docker.io: comes here\n" +
		"ghcr.io: DOES NOT COME HERE: /etc/containerd/certs.d/ghcr.io/hosts.toml lists https://office first\n" +
		"quay.io: DOES NOT COME HERE: /etc/containerd/certs.d/quay.io/hosts.toml lists no mirror\n" +
		"gcr.io: DOES NOT COME HERE: /etc/containerd/certs.d/gcr.io/hosts.toml: line 1 is not TOML: "
	if right || !strings.HasPrefix(said, want) {
		t.Errorf("got\n%s\nwant\n%s", said, want)
	}
	for _, want := range []string{"containerd is not installed here", "with entrepot down a pull costs: ", "to restart: nothing for the files below certs.d"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in\n%s", want, said)
		}
	}
	p.Output = func(context.Context, string, ...string) (string, error) {
		return "containerd: failed to load TOML", errors.New("exit status 1")
	}
	if right, said := p.check("containerd", m, "1.7"); right || !strings.Contains(said, "config dump: containerd: failed to load TOML") {
		t.Error(said)
	}
	p = newPlace(t, nil)
	p.put("/etc/containerd/config.toml", "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = '"+p.System(certsD)+":"+p.System(dockerCerts)+"'\n")
	if right, said := p.check("containerd", m, "2.4"); right || !strings.Contains(said, "docker.io: DOES NOT COME HERE: CRI does not look into /etc/containerd/certs.d and /etc/docker/certs.d: config_path of /etc/containerd/config.toml lists several folders") {
		t.Error(said)
	}
	if right, said := newPlace(t, nil).check("containerd", m, "1.7"); right || !strings.Contains(said, "docker.io: DOES NOT COME HERE: CRI does not look into /etc/containerd/certs.d: config_path is not set in /etc/containerd/config.toml") {
		t.Error(said)
	}
}

func TestWhatOursStoodInPlaceOfComesBackAfterAnEditToo(t *testing.T) {
	const there = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = ''  # none\n"
	p := newPlace(t, map[string]string{"/etc/containerd/config.toml": there})
	m := mirrorOf(t, upstream("docker.io"))
	p.write("containerd", m, "1.7")
	p.put("/etc/containerd/config.toml", "# mine\n"+p.get("/etc/containerd/config.toml"))
	if err := p.remove("containerd", m, "1.7"); err != nil || p.get("/etc/containerd/config.toml") != "# mine\n"+there {
		t.Errorf("%v, it is\n%s", err, p.get("/etc/containerd/config.toml"))
	}
}

func TestTextThatMeansSomethingElseIsNotProven(t *testing.T) {
	set := setKey{[]string{"a", "b"}, "x"}
	for name, c := range map[string]struct {
		before, after string
		want          bool
	}{
		"as meant":                {"c = 1\n", "c = 1\n[a]\nb = 'x'\n", true},
		"another value":           {"", "[a]\nb = 'y'\n", false},
		"theirs is gone":          {"c = 1\n", "[a]\nb = 'x'\n", false},
		"theirs went elsewhere":   {"c = 1\n", "[a]\nb = 'x'\nc = 1\n", false},
		"something else came":     {"", "d = 1\n[a]\nb = 'x'\n", false},
		"it is no TOML":           {"", "[a]\nb = \n", false},
		"a value stands in place": {"a = 1\n", "a = 1\n", false},
	} {
		if err := proveTOML([]byte(c.before), []byte(c.after), set); (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The library of containerd before 2.0 ignores a whole file that has "]" in the
// name of a table, and that of later ones ignores hosts that are no tables.
func TestAnIPv6AddressIsWrittenAsTheVersionReadsIt(t *testing.T) {
	six := &url.URL{Scheme: "http", Host: "[fd00::1]:5000"}
	const theirs = "[host.\"https://office\"]\n  capabilities = [\"pull\"]\n"
	for version, want := range map[string]string{
		"1.7": "host.\"http://[fd00::1]:5000\".capabilities = [\"pull\", \"resolve\"]\nhost.\"http://[fd00::1]:5000\".dial_timeout = \"1s\"\n" +
			"host.\"http://mirror.lan:5000\".capabilities = [\"pull\", \"resolve\"]\nhost.\"http://mirror.lan:5000\".dial_timeout = \"1s\"\n",
		"2.0": "[host.\"http://[fd00::1]:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"1s\"\n" + host,
	} {
		p := newPlace(t, map[string]string{certsD + "/ghcr.io/hosts.toml": theirs})
		m := mirrorOf(t, upstream("ghcr.io"))
		m.Addresses = append([]*url.URL{six}, m.Addresses...)
		p.write("containerd", m, version)
		if got := p.get(certsD + "/ghcr.io/hosts.toml"); got != marked("containerd", want)+theirs {
			t.Errorf("%s: got\n%s\nwant\n%s", version, got, want)
		}
		if right, said := p.check("containerd", m, version); !right {
			t.Error(version, said)
		}
		other := map[string]string{"1.7": "2.0", "2.0": "1.7"}[version]
		if right, said := p.check("containerd", m, other); right {
			t.Errorf("what is written for %s: %s says\n%s", version, other, said)
		}
	}
}

func TestWhatItCostsIsToldByVersion(t *testing.T) {
	for version, want := range map[string]string{
		"1.6": "nothing where the connection is refused, 30 s a request where its machine is gone, as long as it hangs where it does",
		"1.7": "nothing where the connection is refused, 30 s a request where its machine is gone, as long as it hangs where it does (CRI gives the pull up after its image_pull_progress_timeout)",
		"2.2": "nothing where the connection is refused, 1 s a request where its machine is gone, as long as it hangs where it does (CRI gives the pull up after its image_pull_progress_timeout)",
		"2.3": "nothing where the connection is refused, 1 s a request where its machine is gone, 30 s a request where it hangs",
		"":    "nothing where the connection is refused, 1 s (30 s before 2.1) a request where its machine is gone, 30 s a request where it hangs (before 2.3 for as long as it hangs)",
	} {
		v, _ := ParseVersion(version)
		if got := containerdDown(v); got != want {
			t.Errorf("%s: %s", version, got)
		}
	}
}

func TestWhatIsSaidOfTheServerOfDockerHubIsSaidOfDockerHub(t *testing.T) {
	older := olderRegistry{configs: map[string]any{dockerHubServer: map[string]any{"tls": map[string]any{"ca_file": "/ca.pem"}}}}
	text, err := older.hostsTOML(dockerHub)
	if got := older.folders(); err != nil || len(got) != 1 || got[0] != dockerHub || text != "ca = \"/ca.pem\"\n" {
		t.Errorf("%q has %q, %v", got, text, err)
	}
}
