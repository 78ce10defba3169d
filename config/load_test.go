package config

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// write puts content into a file of that name in a folder of the test's own,
// and moves there, so that messages show the bare name.
func write(t *testing.T, name, content string) string {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// clean makes a test independent of the user's folders and variables.
func clean(t *testing.T) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", "/home/someone/.cache")
	for _, assignment := range os.Environ() {
		if name, _, _ := strings.Cut(assignment, "="); strings.HasPrefix(name, envPrefix) {
			t.Setenv(name, "")
		}
	}
}

const designExample = `listen: 127.0.0.1:5000
admin: 127.0.0.1:5001          # health, metrics, status: never on the clients' port
cache:
  dir: /var/lib/entrepot
  max_size: 50GiB              # or 80% of the file system
  min_free: 1GiB
  memory: 256MiB
  verify_every: 1h             # a large blob's pieces are checked again before they are sent when the last check is older, or the file has changed
freshness:
  tag_ttl: 1m
  referrers_ttl: 5m
  negative_ttl: 30s
  max_wait: 2s
  deleted: forget              # or serve: a tag that the upstream deleted goes on, with a warning; per upstream too
admin_hosts: []                # names, beside loopback and the listen address, under which the admin address answers
client_idle: 15m               # how long a client may read nothing; client_keep_alive: 620s
offline: false                 # true: no upstream is ever asked
upstreams:
  - name: docker.io            # what clients call it
    endpoints: [https://registry-1.docker.io]   # tried in order; a parent entrepot can stand first
    aliases: [index.docker.io, registry-1.docker.io]
    hosts: []                  # virtual hosts that mean this upstream
    default: true
    credentials: {username: "", password_file: "", docker_config: false}
    tls: {ca_file: "", insecure_skip_verify: false}
    allow: ["**"]              # repositories; deny wins
    deny: []
    max_requests: 32           # at once
    timeouts: {connect: 5s, header: 60s, idle: 60s}
    immutable_tags: []         # patterns never re-checked; fallback tags never match
    referrers: {cosign_tags: false, buildkit_attestations: false}
`

func TestLoadReadsTheExampleOfTheDesign(t *testing.T) {
	clean(t)
	got, origins, err := Load(Options{File: write(t, "entrepot.yaml", designExample)})
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Listen: "127.0.0.1:5000",
		Admin:  "127.0.0.1:5001",
		Cache: Cache{
			Dir: "/var/lib/entrepot", MaxSize: Size{Bytes: 50 << 30}, MinFree: Size{Bytes: 1 << 30}, Memory: Size{Bytes: 256 << 20},
			VerifyEvery: time.Hour,
		},
		Freshness: Freshness{
			TagTTL: time.Minute, ReferrersTTL: 5 * time.Minute, NegativeTTL: 30 * time.Second, MaxWait: 2 * time.Second, Deleted: "forget",
		},
		ClientIdle: 15 * time.Minute, ClientKeepAlive: 620 * time.Second,
		Log:        Log{Level: "info", Format: "text"},
		AdminHosts: []string{}, ClientHosts: []string{}, ClientNetworks: []string{},
		Pins: []string{},
		Upstreams: []Upstream{{
			Name: "docker.io", Endpoints: []string{"https://registry-1.docker.io"},
			Aliases: []string{"index.docker.io", "registry-1.docker.io"}, Hosts: []string{}, Default: true,
			Allow: []string{"**"}, Deny: []string{}, MaxRequests: 32, ConnectionsPerBlob: 1, Timeouts: Timeouts{Connect: 5 * time.Second, Header: time.Minute, Idle: time.Minute}, ImmutableTags: []string{}, Deleted: "forget",
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	for key, want := range map[string]string{
		"listen":                        "entrepot.yaml:1",
		"cache.memory":                  "entrepot.yaml:7",
		"log.level":                     "default",
		"upstreams[0].endpoints":        "entrepot.yaml:20",
		"upstreams[0].tls.ca_file":      "entrepot.yaml:25",
		"upstreams[0].trusted_realms":   "default",
		"upstreams[0].referrers":        "default", // a table has no value of its own
		"upstreams[0].max_requests":     "entrepot.yaml:28",
		"upstreams[0].timeouts.header":  "entrepot.yaml:29",
		"upstreams[0].credentials.none": "default",
	} {
		if got := origins[key].String(); got != want {
			t.Errorf("origin of %s: got %s, want %s", key, got, want)
		}
	}
}

// everyKey gives every key of the schema a value that is not its default.
const everyKey = `listen: 0.0.0.0:80
admin: 127.0.0.1:81
admin_hosts: [entrepot.example.com, "fd00::1", "[fd00::2]", 192.0.2.1]
admin_token_file: TOKEN
client_hosts: [mirror.example.com, 192.0.2.2]
client_networks: [10.0.0.0/8, "fd00::/8"]
client_idle: 1h
client_keep_alive: 1h5m
tls: {cert_file: CERT, key_file: KEY}
cache: {dir: /srv/cache, max_size: 80%, min_free: 2GB, memory: 64MiB, scrub_rate: 5MiB, verify_every: 0s}
freshness: {tag_ttl: 0s, referrers_ttl: 1h, negative_ttl: 1m30s, max_wait: 500ms, deleted: serve}
offline: true
log: {level: debug, format: json}
pins: [ghcr.io/org/**]
upstreams:
  - name: registry.example.com:5000
    endpoints: [http://parent:5000/v2/registry.example.com, https://registry.example.com:5000]
    aliases: [reg.example.com]
    hosts: [reg.mirror.lan]
    default: true
    credentials: {username: someone, password_file: SECRET}
    tls: {ca_file: CERT, insecure_skip_verify: true}
    trusted_realms: [auth.example.net]
    allow_private_redirects: true
    allow: [org/**]
    deny: [org/secret/*]
    max_requests: 7
    connections_per_blob: 2
    timeouts: {connect: 3s, header: 2m, idle: 90s}
    immutable_tags: [v*.*.*]
    deleted: serve
    referrers: {cosign_tags: true, buildkit_attestations: true}
    offline: true
  - name: ghcr.io
    credentials: {docker_config: true}
`

// withFiles names real files where everyKey has words for them.
func withFiles(t *testing.T, content string) string {
	t.Helper()
	certificate, key := selfSigned(t)
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("CERT", certificate, "KEY", key, "SECRET", secret, "TOKEN", adminToken(t)).Replace(content)
}

// adminToken returns a file with a token.
func adminToken(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestEveryKeyIsReadAndWrittenBack(t *testing.T) {
	clean(t)
	file := write(t, "entrepot.yaml", withFiles(t, everyKey))
	cfg, origins, err := Load(Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("every key got its value from the file", func(t *testing.T) {
		defaults := Default()
		defaults.Upstreams = []Upstream{defaultUpstream()}
		byPath := map[string]string{}
		leaves(reflect.ValueOf(defaults), "", func(path string, v reflect.Value) { byPath[path] = toText(v) })
		leaves(reflect.ValueOf(cfg), "", func(path string, v reflect.Value) {
			if strings.HasPrefix(path, "upstreams[1]") || strings.HasSuffix(path, "docker_config") {
				return
			}
			if origins[path].Kind != FromFile || toText(v) == byPath[path] {
				t.Errorf("%s is %s, from %s", path, toText(v), origins[path])
			}
		})
		if !cfg.Upstreams[1].Credentials.DockerConfig {
			t.Error("upstreams[1].credentials.docker_config is false")
		}
	})
	for _, name := range []string{"shown.yaml", "shown.json", "shown.toml"} {
		t.Run("what is written as "+name+" reads the same", func(t *testing.T) {
			var b strings.Builder
			var err error
			switch filepath.Ext(name) {
			case ".yaml":
				err = WriteYAML(&b, cfg, origins)
			case ".json":
				b.WriteString(configOf(t, cfg, origins))
			case ".toml":
				b.WriteString(asTOML(cfg))
			}
			if err != nil {
				t.Fatal(err)
			}
			again, _, err := Load(Options{File: write(t, name, b.String())})
			if err != nil {
				t.Fatalf("%v in\n%s", err, b.String())
			}
			if got, want := flat(again), flat(cfg); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// configOf is the part of WriteJSON's answer that is a configuration.
func configOf(t *testing.T, cfg Config, origins Origins) string {
	t.Helper()
	var b strings.Builder
	if err := WriteJSON(&b, cfg, origins); err != nil {
		t.Fatal(err)
	}
	var shown struct {
		Config  json.RawMessage
		Origins map[string]string
	}
	if err := json.Unmarshal([]byte(b.String()), &shown); err != nil {
		t.Fatal(err)
	}
	if got := shown.Origins["upstreams[0].max_requests"]; got != "entrepot.yaml:27" {
		t.Errorf("origin of max_requests: got %q", got)
	}
	return string(shown.Config)
}

func toText(v reflect.Value) string {
	if v.Kind() == reflect.Slice {
		return strings.Join(v.Interface().([]string), " ")
	}
	return textOf(v)
}

func flat(cfg Config) []string {
	var all []string
	leaves(reflect.ValueOf(cfg), "", func(path string, v reflect.Value) { all = append(all, path+" = "+toText(v)) })
	return all
}

// asTOML writes a configuration in the forms that TOML has for tables: headed,
// dotted and inline.
func asTOML(cfg Config) string {
	var b strings.Builder
	line := func(path string, v reflect.Value) {
		b.WriteString(path + " = ")
		switch {
		case v.Kind() == reflect.Slice && v.Len() == 0:
			b.WriteString("[]\n")
		case v.Kind() == reflect.Slice:
			b.WriteString("[\n  '" + strings.Join(v.Interface().([]string), "', # an item\n  '") + "',\n]\n")
		case v.Kind() == reflect.Bool || v.Kind() == reflect.Int:
			b.WriteString(textOf(v) + "\n")
		default:
			b.WriteString("'" + textOf(v) + "'\n")
		}
	}
	upstreams := cfg.Upstreams
	cfg.Upstreams = nil
	leaves(reflect.ValueOf(cfg), "", line)
	for _, u := range upstreams {
		b.WriteString("\n[[upstreams]]\n")
		leaves(reflect.ValueOf(u), "", line)
	}
	return b.String()
}

func TestLoadWithoutAnythingGivesThePublicRegistriesOnLoopback(t *testing.T) {
	clean(t)
	cfg, origins, err := Load(Options{Environment: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(origins) != 0 {
		t.Errorf("origins: got %v, want none", origins)
	}
	if cfg.Listen != "127.0.0.1:5000" || cfg.Admin != "127.0.0.1:5001" || cfg.Cache.Dir != "/home/someone/.cache/entrepot" {
		t.Errorf("got %s, %s and %s", cfg.Listen, cfg.Admin, cfg.Cache.Dir)
	}
	var got []string
	for _, u := range cfg.Upstreams {
		got = append(got, u.Name+" "+strings.Join(u.Endpoints, " "))
		if u.Default != (u.Name == "docker.io") {
			t.Errorf("%s: default is %v", u.Name, u.Default)
		}
		if !u.Allows("any/thing") || u.MaxRequests != 32 {
			t.Errorf("%s: allows %v, %d at once", u.Name, u.Allow, u.MaxRequests)
		}
	}
	want := []string{
		"docker.io https://registry-1.docker.io", "ghcr.io https://ghcr.io", "quay.io https://quay.io", "gcr.io https://gcr.io",
		"registry.k8s.io https://registry.k8s.io", "mcr.microsoft.com https://mcr.microsoft.com", "public.ecr.aws https://public.ecr.aws",
		"nvcr.io https://nvcr.io", "registry.gitlab.com https://registry.gitlab.com", "lscr.io https://lscr.io",
		"mirror.gcr.io https://mirror.gcr.io", "us-docker.pkg.dev https://us-docker.pkg.dev", "docker.elastic.co https://docker.elastic.co",
		"registry.access.redhat.com https://registry.access.redhat.com", "registry.fedoraproject.org https://registry.fedoraproject.org",
		"registry.opensuse.org https://registry.opensuse.org", "registry.suse.com https://registry.suse.com",
		"container-registry.oracle.com https://container-registry.oracle.com", "cgr.dev https://cgr.dev", "cr.fluentbit.io https://cr.fluentbit.io",
		"cr.l5d.io https://cr.l5d.io", "reg.kyverno.io https://reg.kyverno.io", "xpkg.crossplane.io https://xpkg.crossplane.io",
		"factory.talos.dev https://factory.talos.dev",
	}
	if !slices.Equal(got, want) {
		t.Errorf("upstreams: got %q, want %q", got, want)
	}
	if got, want := cfg.Upstreams[0].Aliases, []string{"index.docker.io", "registry-1.docker.io"}; !slices.Equal(got, want) {
		t.Errorf("aliases: got %q, want %q", got, want)
	}
}

func TestAGatewaysTokenServerIsTrustedUnlessOthersAre(t *testing.T) {
	clean(t)
	defaults := map[string][]string{}
	for _, u := range Default().Upstreams {
		if len(u.TrustedRealms) > 0 {
			defaults[u.Name] = u.TrustedRealms
		}
	}
	want := map[string][]string{
		"lscr.io": {"ghcr.io"}, "cr.l5d.io": {"ghcr.io"}, "reg.kyverno.io": {"ghcr.io"}, "xpkg.crossplane.io": {"ghcr.io"},
		"cr.fluentbit.io": {"ghcr.io", "auth.docker.io"},
	}
	if !reflect.DeepEqual(defaults, want) {
		t.Errorf("by default: %v, want %v", defaults, want)
	}
	for content, want := range map[string][]string{
		"upstreams: [{name: lscr.io}]":                                          {"ghcr.io"},
		"upstreams: [{name: lscr.io, trusted_realms: [auth.example.com]}]":      {"auth.example.com"},
		"upstreams: [{name: lscr.io, endpoints: [\"https://harbor.example\"]}]": nil,
		"upstreams: [{name: ghcr.io}]":                                          nil,
	} {
		cfg, _, err := Load(Options{File: write(t, "c.yaml", content+"\n")})
		if err != nil {
			t.Fatal(err)
		}
		if got := cfg.Upstreams[0].TrustedRealms; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", content, got, want)
		}
	}
}

func TestLoadTakesTheStrongestOfFileVariableAndFlag(t *testing.T) {
	clean(t)
	file := write(t, "entrepot.toml", "listen = '127.0.0.1:1'\nadmin = '127.0.0.1:2'\noffline = true\n"+
		"[cache]\nmax_size = '1GiB'\n[log]\nlevel = 'warn'\n")
	t.Setenv("ENTREPOT_ADMIN", "127.0.0.1:12")
	t.Setenv("ENTREPOT_CACHE_MAX_SIZE", "2GiB")
	t.Setenv("ENTREPOT_CACHE_DIR", "/srv/entrepot")
	t.Setenv("ENTREPOT_FRESHNESS_TAG_TTL", "7s")
	t.Setenv("ENTREPOT_LOG_FORMAT", "json")
	t.Setenv("ENTREPOT_ADMIN_HOSTS", "entrepot.example.com, 192.0.2.1,")
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse([]string{"--config", file, "--max-size", "3GiB", "--offline=false"}); err != nil {
		t.Fatal(err)
	}
	cfg, origins, err := Load(Options{Environment: true, Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string][2]string{
		"listen":                 {"127.0.0.1:1", "entrepot.toml:1"},
		"admin":                  {"127.0.0.1:12", "env ENTREPOT_ADMIN"},
		"offline":                {"false", "flag --offline"},
		"cache.dir":              {"/srv/entrepot", "env ENTREPOT_CACHE_DIR"},
		"cache.max_size":         {"3GiB", "flag --max-size"},
		"cache.min_free":         {"1GiB", "default"},
		"freshness.tag_ttl":      {"7s", "env ENTREPOT_FRESHNESS_TAG_TTL"},
		"freshness.max_wait":     {"2s", "default"},
		"admin_hosts":            {"entrepot.example.com 192.0.2.1", "env ENTREPOT_ADMIN_HOSTS"},
		"log.level":              {"warn", "entrepot.toml:7"},
		"log.format":             {"json", "env ENTREPOT_LOG_FORMAT"},
		"upstreams[0].endpoints": {"https://registry-1.docker.io", "default"},
	} {
		got := [2]string{"", origins[key].String()}
		leaves(reflect.ValueOf(cfg), "", func(path string, v reflect.Value) {
			if path == key {
				got[0] = toText(v)
			}
		})
		if got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	t.Run("a flag names another file than the variable", func(t *testing.T) {
		t.Setenv(EnvFile, "none.yaml")
		if _, _, err := Load(Options{Environment: true, Flags: flags}); err != nil {
			t.Error(err)
		}
		_, _, err := Load(Options{Environment: true})
		want := "the configuration has a mistake:\n  none.yaml: cannot be read: no such file or directory"
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

func TestLoadKnowsEveryKeyByVariable(t *testing.T) {
	clean(t)
	certificate, key := selfSigned(t)
	values := map[string]string{
		"listen": "[::1]:0", "admin": "localhost:9", "tls.cert_file": certificate, "tls.key_file": key,
		"cache.dir": "/c", "cache.max_size": "10%", "cache.min_free": "5%", "cache.memory": "3MiB", "cache.scrub_rate": "4MiB", "cache.verify_every": "5h",
		"freshness.tag_ttl": "1h", "freshness.referrers_ttl": "2h", "freshness.negative_ttl": "3h", "freshness.max_wait": "4h",
		"freshness.deleted": "serve", "admin_hosts": "a.lan,192.0.2.1", "admin_token_file": adminToken(t),
		"client_hosts": "b.lan,192.0.2.2", "client_networks": "10.0.0.0/8,fd00::/8", "pins": "ghcr.io/org/**,quay.io/org/app:1",
		"client_idle": "6h", "client_keep_alive": "7h",
		"offline": "true", "log.level": "error", "log.format": "json",
	}
	for _, path := range singleKeys() {
		t.Setenv(variable(path), values[path])
	}
	cfg, _, err := Load(Options{Environment: true})
	if err != nil {
		t.Fatal(err)
	}
	leaves(reflect.ValueOf(cfg), "", func(path string, v reflect.Value) {
		if !strings.HasPrefix(path, "upstreams") && textOf(v) != values[path] {
			t.Errorf("%s: got %s, want %s", path, textOf(v), values[path])
		}
	})
}

func TestAListByAVariableTakesThePlaceOfTheFiles(t *testing.T) {
	for format, content := range map[string]string{
		"c.yaml": "pins: [ghcr.io/org/a, ghcr.io/org/b]\nadmin_hosts: [a.lan]\n",
		"c.toml": "pins = ['ghcr.io/org/a', 'ghcr.io/org/b']\nadmin_hosts = ['a.lan']\n",
		"c.json": `{"pins": ["ghcr.io/org/a", "ghcr.io/org/b"], "admin_hosts": ["a.lan"]}`,
	} {
		t.Run(format, func(t *testing.T) {
			clean(t)
			file := write(t, format, content)
			t.Setenv("ENTREPOT_PINS", "quay.io/org/app:1, docker.io/library/alpine")
			cfg, origins, err := Load(Options{File: file, Environment: true})
			if err != nil {
				t.Fatal(err)
			}
			if want := []string{"quay.io/org/app:1", "docker.io/library/alpine"}; !slices.Equal(cfg.Pins, want) {
				t.Errorf("pins: got %q, want %q", cfg.Pins, want)
			}
			if len(cfg.PinList()) != 2 || origins["pins"].String() != "env ENTREPOT_PINS" {
				t.Errorf("pins: %+v from %s", cfg.PinList(), origins["pins"])
			}
			if want := []string{"a.lan"}; !slices.Equal(cfg.AdminHosts, want) || origins["admin_hosts"].String() != format+":"+map[bool]string{true: "1", false: "2"}[format == "c.json"] {
				t.Errorf("admin_hosts: got %q from %s, want %q", cfg.AdminHosts, origins["admin_hosts"], want)
			}
		})
	}
}

// Names and values as makeEnvVariables of pkg/kubelet/envvars makes them, for
// services called entrepot, entrepot-admin, entrepot-9 and entrepot-service.
func TestLoadLeavesVariablesOfKubernetesAlone(t *testing.T) {
	clean(t)
	for name, value := range map[string]string{
		"ENTREPOT_SERVICE_HOST": "10.0.0.1", "ENTREPOT_SERVICE_PORT": "5000", "ENTREPOT_SERVICE_PORT_REGISTRY": "5000",
		"ENTREPOT_PORT": "tcp://10.0.0.1:5000", "ENTREPOT_PORT_5000_TCP": "tcp://10.0.0.1:5000", "ENTREPOT_PORT_5000_TCP_PROTO": "tcp",
		"ENTREPOT_PORT_5000_TCP_PORT": "5000", "ENTREPOT_PORT_5000_TCP_ADDR": "10.0.0.1",
		"ENTREPOT_ADMIN_SERVICE_HOST": "fd00::2", "ENTREPOT_ADMIN_SERVICE_PORT_ADMIN_HTTP": "5001", "ENTREPOT_ADMIN_PORT": "udp://[fd00::2]:5001",
		"ENTREPOT_ADMIN_PORT_5001_UDP_ADDR": "fd00::2", "ENTREPOT_9_PORT_1_SCTP_PROTO": "sctp", "ENTREPOT_9_SERVICE_PORT": "1",
		"ENTREPOT_SERVICE_PORT_80_TCP": "tcp://10.0.0.3:80", "ENTREPOT_SERVICE_SERVICE_HOST": "10.0.0.3", // of one called entrepot-service
		"ENTREPOT_LISTN": "", // as good as none
		"ENTREPOTLISTEN": "none of these",
	} {
		t.Setenv(name, value)
	}
	if _, _, err := Load(Options{Environment: true}); err != nil {
		t.Error(err)
	}
}

func TestLoadCreatesNothing(t *testing.T) {
	clean(t)
	home := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", home)
	dir := filepath.Join(home, "elsewhere")
	file := write(t, "entrepot.yaml", "cache: {dir: "+dir+"}\n")
	if _, _, err := Load(Options{File: file}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of the cache: %v", err)
	}
	left, err := os.ReadDir(home)
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestWhatBecomesOfDeletedTagsIsSaidOfAllOrOfOneUpstream(t *testing.T) {
	clean(t)
	for content, want := range map[string]string{
		"upstreams: [{name: a.b}, {name: c.d}]":                                                               "forget forget",
		"freshness: {deleted: serve}\nupstreams: [{name: a.b}, {name: c.d, deleted: forget}]":                 "serve forget",
		"freshness: {deleted: forget}\nupstreams: [{name: a.b, deleted: serve}, {name: c.d}]":                 "serve forget",
		"freshness: {deleted: serve}\nupstreams: [{name: a.b, deleted: serve}, {name: c.d, deleted: forget}]": "serve forget",
	} {
		cfg, _, err := Load(Options{File: write(t, "c.yaml", content+"\n")})
		if err != nil {
			t.Fatal(err)
		}
		if got := cfg.Upstreams[0].Deleted + " " + cfg.Upstreams[1].Deleted; got != want {
			t.Errorf("%s: %s, want %s", content, got, want)
		}
	}
	t.Setenv("ENTREPOT_FRESHNESS_DELETED", "serve")
	cfg, origins, err := Load(Options{Environment: true})
	if err != nil || cfg.Upstreams[9].Deleted != "serve" || origins["freshness.deleted"].String() != "env ENTREPOT_FRESHNESS_DELETED" {
		t.Errorf("by a variable: %q from %s, %v", cfg.Upstreams[9].Deleted, origins["freshness.deleted"], err)
	}
}

func TestTheDefaultOfMemoryIsAQuarterOfWhatThereIs(t *testing.T) {
	clean(t)
	for limit, want := range map[int64]string{
		0: "256MiB", 8 << 30: "256MiB", 1 << 30: "256MiB", 512 << 20: "128MiB", 128 << 20: "32MiB", 130_000_000: "30MiB", 2 << 20: "1MiB",
	} {
		cfg, _, err := Load(Options{Memory: limit})
		if err != nil || cfg.Cache.Memory.String() != want {
			t.Errorf("of %s it is %s (%v), want %s", Size{Bytes: limit}, cfg.Cache.Memory, err, want)
		}
	}
	cfg, _, err := Load(Options{Memory: 128 << 20, File: write(t, "c.yaml", "cache: {memory: 100MiB}\n")})
	if err != nil || cfg.Cache.Memory.Bytes != 100<<20 {
		t.Errorf("a configured value is changed to %s (%v)", cfg.Cache.Memory, err)
	}
}
