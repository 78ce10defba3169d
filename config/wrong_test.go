package config

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestLoadReportsEveryMistakeWithItsPlaceAndItsMend(t *testing.T) {
	for _, c := range []struct {
		name, file, content string
		want                string // the lines of the message after its first
	}{
		{"an unknown key with a near one", "c.yaml", "cache:\n  max_sizes: 1GB\n", "c.yaml:2: cache.max_sizes: unknown key; did you mean cache.max_size?"},
		{"a key in the wrong case", "c.yaml", "Listen: :1\n", "c.yaml:1: Listen: unknown key; did you mean listen?"},
		{"a key that belongs into another table", "c.yaml", "tag_ttl: 1m\n", "c.yaml:1: tag_ttl: unknown key; did you mean freshness.tag_ttl?"},
		{"a key that belongs into an upstream", "c.yaml", "\nendpoints: []\n", "c.yaml:2: endpoints: unknown key; did you mean upstreams[].endpoints?"},
		{"a key that belongs deeper into the same upstream", "c.yaml", "upstreams:\n- name: a.b\n- name: c.d\n  ca_file: x\n", "c.yaml:4: upstreams[1].ca_file: unknown key; did you mean upstreams[1].tls.ca_file?"},
		{"an unknown key near to none", "c.yaml", "log:\n  colour: red\n", "c.yaml:2: log.colour: unknown key; known here: level, format"},
		{"half of a key", "c.toml", "[[upstreams]]\nname = 'a.b'\ntls.ca = 'x'\n", "c.toml:3: upstreams[0].tls.ca: unknown key; did you mean upstreams[0].tls.ca_file?"},
		{"a key given twice", "c.yaml", "offline: true\nlisten: :1\noffline: false\n", "c.yaml:3: offline: is set twice, first on line 1; keep only one of them"},
		{"a key given twice in JSON", "c.json", "{\"offline\": true,\n\t\"offline\": true}", "c.json:2: offline: is set twice, first on line 1; keep only one of them"},
		{"a key given twice in TOML", "c.toml", "offline = true\noffline = true\n", "c.toml:2: not TOML: key offline is already defined"},
		{"a list where a value belongs", "c.yaml", "listen: [a]\n", "c.yaml:1: listen: is a list, must be a single value"},
		{"a value where a list belongs", "c.yaml", "upstreams:\n- name: a.b\n  aliases: c.d\n", "c.yaml:3: upstreams[0].aliases: is a single value, must be a list; write [c.d]"},
		{"a table where the list of upstreams belongs", "c.yaml", "upstreams:\n  ghcr.io: {}\n", "c.yaml:2: upstreams: is a table, must be a list; write a list of tables, each with a name"},
		{"names where upstreams belong", "c.json", "{\"upstreams\":\n [{\"name\":\"a.b\"},\n \"ghcr.io\"]}", "c.json:3: upstreams[1]: is a single value, must be a table; known here: name, endpoints, aliases, hosts, default, credentials, tls, trusted_realms, allow_private_redirects, allow, deny, max_requests, connections_per_blob, timeouts, immutable_tags, deleted, referrers, offline"},
		{"a value where the whole table belongs", "c.yaml", "hello\n", "c.yaml:1: is a single value, must be a table; known here: listen, admin, admin_hosts, admin_token_file, client_hosts, client_networks, client_idle, client_keep_alive, tls, cache, freshness, offline, log, pins, upstreams"},
		{"a file that is not YAML", "c.yaml", "a: 1\nb: [\n", "c.yaml:2: not YAML: did not find expected node content"},
		{"two documents", "c.yaml", "offline: true\n---\noffline: true\n", "c.yaml:2: contains a second document; keep only one document"},
		{"aliases without end", "c.yaml", "a: &a [*a]\n", "c.yaml: contains too many values; replace its aliases by their values"},
		{"a file that is not JSON", "c.json", "{\n\"a\": 1,\n}", "c.json:3: not JSON: invalid character '}' looking for beginning of object key string"},
		{"a file that is not TOML", "c.toml", "\nx = \n", "c.toml:2: not TOML: unexpected character U+000A at start of value"},
		{"a file of another kind", "c.ini", "", "c.ini: unknown format \".ini\"; name it .yaml, .toml or .json"},
		{"a file of no kind", "c", "", "c: has no file name extension that tells its format; name it .yaml, .toml or .json"},

		{"an address without a port", "c.yaml", "listen: 0.0.0.0\n", "c.yaml:1: listen: \"0.0.0.0\" is not host:port; did you mean 0.0.0.0:5000?"},
		{"a port without a host", "c.yaml", "listen: 5000\n", "c.yaml:1: listen: \"5000\" is not host:port; did you mean 127.0.0.1:5000?"},
		{"a port that is none", "c.yaml", "listen: :70000\n", "c.yaml:1: listen: \"70000\" is not a port; write a number from 0 (any free port) to 65535"},
		{"a host that is none", "c.yaml", "listen: \"a b:1\"\n", "c.yaml:1: listen: \"a b\" is neither an IP address nor a host name; write an address such as 127.0.0.1:5000"},
		{"no address", "c.yaml", "admin: \"\"\n", "c.yaml:1: admin: is empty; write an address such as 127.0.0.1:5001"},
		{"a socket that is no URL", "c.yaml", "admin: \"unix:/run/a.sock\"\n", "c.yaml:1: admin: \"unix:/run/a.sock\" is not the address of a socket; did you mean unix:///run/a.sock?"},
		{"a socket somewhere", "c.yaml", "admin: unix://a.sock\n", "c.yaml:1: admin: \"a.sock\" is not an absolute path; write a path such as unix:///run/entrepot/admin.sock"},
		{"a socket without a name", "c.yaml", "admin: unix:///run/\n", "c.yaml:1: admin: \"/run/\" is not the path of a file; write a path such as unix:///run/entrepot/admin.sock"},
		{"a socket that no system takes", "c.yaml", "admin: unix:///" + strings.Repeat("a", 103) + "\n", "c.yaml:1: admin: has a path of 104 bytes, and a socket's has at most 103; write a path such as unix:///run/entrepot/admin.sock"},
		{"a socket for clients", "c.yaml", "listen: unix:///run/a.sock\n", "c.yaml:1: listen: \"///run/a.sock\" is not a port; write a number from 0 (any free port) to 65535"},
		{"one address for clients and admin", "c.yaml", "listen: :5001\n", "admin: \"127.0.0.1:5001\" is also the address for clients; write another port: metrics and status are not meant for clients"},
		{"a certificate without a key", "c.yaml", "tls: {cert_file: a}\n", "c.yaml:1: tls.cert_file: has no key; set tls.key_file as well"},
		{"a key without a certificate", "c.yaml", "tls: {key_file: a}\n", "c.yaml:1: tls.key_file: has no certificate; set tls.cert_file as well"},
		{"a certificate and a key that can't be read", "c.yaml", "tls:\n  cert_file: a\n  key_file: b\n", "c.yaml:2: tls.cert_file: \"a\" cannot be read: no such file or directory\nc.yaml:3: tls.key_file: \"b\" cannot be read: no such file or directory"},
		{"a certificate that is none", "c.yaml", "tls: {cert_file: c.yaml, key_file: c.yaml}\n", "c.yaml:1: tls.cert_file: does not match tls.key_file: failed to find any PEM data in certificate input; both must be PEM, and the first certificate must belong to the key"},
		{"an unknown unit", "c.yaml", "cache: {max_size: 50Gi}\n", "c.yaml:1: cache.max_size: unknown unit \"Gi\"; did you mean 50GiB?"},
		{"half a unit", "c.yaml", "cache: {max_size: 50g}\n", "c.yaml:1: cache.max_size: unknown unit \"g\"; write 50GiB (powers of 1024) or 50GB (powers of 1000)"},
		{"a unit of something else", "c.yaml", "cache: {max_size: 3 parsecs}\n", "c.yaml:1: cache.max_size: unknown unit \"parsecs\"; known units: B, kB, KiB, MB, MiB, GB, GiB, TB, TiB, %"},
		{"a negative size", "c.yaml", "cache: {min_free: -1GB}\n", "c.yaml:1: cache.min_free: \"-1GB\" is negative; write a size such as 50GiB, 1GB or 80%"},
		{"a size that is none", "c.yaml", "cache: {min_free: much}\n", "c.yaml:1: cache.min_free: \"much\" is not a size; write a size such as 50GiB, 1GB or 80%"},
		{"a size beyond all disks", "c.yaml", "cache: {max_size: 99999999TB}\n", "c.yaml:1: cache.max_size: \"99999999TB\" is more than any disk holds; write a size such as 50GiB, 1GB or 80%"},
		{"more than the whole file system", "c.yaml", "cache: {max_size: 101%}\n", "c.yaml:1: cache.max_size: \"101%\" is not a percentage; write a whole number from 1% to 100%"},
		{"no room at all", "c.yaml", "cache: {max_size: 0}\n", "c.yaml:1: cache.max_size: is 0; write a size such as 50GiB or 80%"},
		{"a share of memory", "c.yaml", "cache: {memory: 10%}\n", "c.yaml:1: cache.memory: is a percentage; write a size such as 256MiB"},
		{"hardly any memory", "c.yaml", "cache: {memory: 1kB}\n", "c.yaml:1: cache.memory: is less than 1MiB; write a size such as 256MiB"},
		{"no folder", "c.yaml", "cache: {dir: \"\"}\n", "c.yaml:1: cache.dir: is empty, and this user has no cache folder; write the folder for the cache"},
		{"a duration without a unit", "c.yaml", "freshness: {tag_ttl: 60}\n", "c.yaml:1: freshness.tag_ttl: \"60\" is not a duration; did you mean 60s?"},
		{"a duration in days", "c.yaml", "freshness: {tag_ttl: 2d}\n", "c.yaml:1: freshness.tag_ttl: \"2d\" is not a duration; did you mean 48h?"},
		{"a duration that is none", "c.yaml", "freshness: {tag_ttl: soon}\n", "c.yaml:1: freshness.tag_ttl: \"soon\" is not a duration; write a duration such as 500ms, 30s, 1m30s or 2h"},
		{"a negative duration", "c.yaml", "freshness: {negative_ttl: -1m}\n", "c.yaml:1: freshness.negative_ttl: \"-1m\" is negative; did you mean 1m?"},
		{"no time to wait", "c.yaml", "freshness: {max_wait: 0s}\n", "c.yaml:1: freshness.max_wait: is 0: no upstream could answer in time; write how long a client may wait, such as 2s"},
		{"a fate of deleted tags that is none", "c.yaml", "freshness: {deleted: keep}\n", "c.yaml:1: freshness.deleted: unknown value \"keep\"; write forget or serve"},
		{"the same of one upstream", "c.yaml", "upstreams: [{name: a.b, deleted: server}]\n", "c.yaml:1: upstreams[0].deleted: unknown value \"server\"; did you mean serve?"},
		{"the same of all, once", "c.yaml", "freshness: {deleted: true}\nupstreams: [{name: a.b}, {name: c.d}]\n", "c.yaml:1: freshness.deleted: unknown value \"true\"; write forget or serve"},
		{"a word that is neither true nor false", "c.yaml", "offline: yes\n", "c.yaml:1: offline: \"yes\" is neither true nor false; write true or false"},
		{"a level that is none", "c.yaml", "log: {level: warning}\n", "c.yaml:1: log.level: unknown value \"warning\"; did you mean warn?"},
		{"a format that is none", "c.yaml", "log: {format: xml}\n", "c.yaml:1: log.format: unknown value \"xml\"; write text or json"},

		{"no time at all for a client", "c.yaml", "client_idle: 0s\n", "c.yaml:1: client_idle: is 0s: no client could keep up with it; write how long a client may read nothing, such as 15m"},
		{"connections that are never kept", "c.yaml", "client_keep_alive: 1ms\n", "c.yaml:1: client_keep_alive: is 1ms: no client could keep up with it; write how long a connection may be idle, such as 620s"},
		{"a negative time for a client", "c.yaml", "client_idle: -15m\n", "c.yaml:1: client_idle: \"-15m\" is negative; did you mean 15m?"},
		{"a host of the admin address with a port", "c.yaml", "admin_hosts: [\"a.lan:5001\"]\n", "c.yaml:1: admin_hosts[0]: \"a.lan:5001\" has a port; did you mean a.lan? It applies to every port"},
		{"a host of the admin address that is a URL", "c.yaml", "admin_hosts: [\"http://a.lan/\"]\n", "c.yaml:1: admin_hosts[0]: \"http://a.lan/\" is not a host in lower case; did you mean a.lan?"},
		{"a host of the admin address in capitals", "c.yaml", "admin_hosts: [a.lan, A.lan]\n", "c.yaml:1: admin_hosts[1]: \"A.lan\" is not a host in lower case; did you mean a.lan?"},
		{"a host of the admin address that is none", "c.yaml", "admin_hosts: [\"\"]\n", "c.yaml:1: admin_hosts[0]: is empty; write a name such as entrepot.example.com"},
		{"every name as a host of the admin address", "c.yaml", "admin_hosts: [\"*.lan\"]\n", "c.yaml:1: admin_hosts[0]: \"*.lan\" is a pattern; write each name: anyone who controls a matching name could use the admin API"},
		{"every address as a host of the admin address", "c.yaml", "admin_hosts: [0.0.0.0]\n", "c.yaml:1: admin_hosts[0]: \"0.0.0.0\" stands for all addresses, and is not a host that clients use; remove it: the address that a client connects to always answers"},
		{"hosts of the admin address that are no list", "c.yaml", "admin_hosts: a.lan\n", "c.yaml:1: admin_hosts: is a single value, must be a list; write [a.lan]"},
		{"a token that is not there", "c.yaml", "admin_token_file: none\n", "c.yaml:1: admin_token_file: \"none\" cannot be read: no such file or directory"},
		{"a host of clients that is a pattern", "c.yaml", "client_hosts: [a.lan, \"*.lan\"]\n", "c.yaml:1: client_hosts[1]: \"*.lan\" is a pattern; write each name: anyone who controls a matching name could read what the credentials can read"},
		{"a host of clients with a port", "c.yaml", "client_hosts: [\"a.lan:5000\"]\n", "c.yaml:1: client_hosts[0]: \"a.lan:5000\" has a port; did you mean a.lan? It applies to every port"},
		{"a network that is an address", "c.yaml", "client_networks: [192.0.2.1]\n", "c.yaml:1: client_networks[0]: \"192.0.2.1\" is not a network; did you mean 192.0.2.1/32?"},
		{"a network that is none", "c.yaml", "client_networks: [lan]\n", "c.yaml:1: client_networks[0]: \"lan\" is not a network; write a network such as 10.0.0.0/8 or fd00::/8"},
		{"a network with an address in it", "c.yaml", "client_networks: [10.1.2.3/8]\n", "c.yaml:1: client_networks[0]: \"10.1.2.3/8\" has bits outside of its mask; did you mean 10.0.0.0/8?"},
		{"a network that no client is in", "c.yaml", "client_networks: [\"::ffff:10.0.0.0/104\"]\n", "c.yaml:1: client_networks[0]: \"::ffff:10.0.0.0/104\" is an IPv4 network in IPv6; write it as IPv4, such as 10.0.0.0/8"},
		{"checks before they are due", "c.yaml", "cache: {verify_every: -1h}\n", "c.yaml:1: cache.verify_every: \"-1h\" is negative; did you mean 1h?"},
		{"a scrub by shares", "c.yaml", "cache: {scrub_rate: 5%}\n", "c.yaml:1: cache.scrub_rate: is a percentage; write how many bytes to read per second, such as 10MiB"},
		{"a pin of nothing", "c.yaml", "pins: [alpine]\n", "c.yaml:1: pins[0]: \"alpine\" names no repository of an upstream; write it as docker.io/library/alpine:3.*, ghcr.io/org/** or quay.io/org/app@sha256:…"},
		{"a pin of nobody's", "c.yaml", "pins: [docker.oi/library/alpine]\n", "c.yaml:1: pins[0]: names no upstream: \"docker.oi\"; did you mean docker.io?"},
		{"no upstream", "c.yaml", "upstreams: []\n", "c.yaml:1: upstreams: is empty: there is nothing to pull from; name an upstream, or remove the key for the public registries"},
		{"an upstream without a name", "c.yaml", "upstreams: [{default: true}]\n", "c.yaml:1: upstreams[0].name: is missing; write the name that clients use for the registry, such as ghcr.io"},
		{"a name in capitals", "c.yaml", "upstreams: [{name: GHCR.io}]\n", "c.yaml:1: upstreams[0].name: \"GHCR.io\" is not a host in lower case; did you mean ghcr.io?"},
		{"a name that is a URL", "c.yaml", "upstreams: [{name: \"https://ghcr.io/\"}]\n", "c.yaml:1: upstreams[0].name: \"https://ghcr.io/\" is not a host in lower case; did you mean ghcr.io?"},
		{"a name with repositories", "c.yaml", "upstreams: [{name: ghcr.io/org}]\n", "c.yaml:1: upstreams[0].name: \"ghcr.io/org\" names repositories as well; write ghcr.io, and allow: [\"org/**\"]"},
		{"a name with blanks", "c.yaml", "upstreams: [{name: my hub}]\n", "c.yaml:1: upstreams[0].name: \"my hub\" is not a host in lower case; write a host such as ghcr.io"},
		{"one name twice", "c.yaml", "upstreams:\n- name: a.b\n- name: a.b\n", "c.yaml:3: upstreams[1].name: \"a.b\" is upstreams[0].name already; a name can only stand for one upstream"},
		{"an alias that is a name", "c.yaml", "upstreams:\n- name: a.b\n- name: c.d\n  aliases: [e.f, a.b]\n", "c.yaml:4: upstreams[1].aliases[1]: \"a.b\" is upstreams[0].name already; a name can only stand for one upstream"},
		{"docker.io twice", "c.yaml", "upstreams:\n- name: docker.io\n- name: docker.io\n", "c.yaml:3: upstreams[1].name: \"docker.io\" is upstreams[0].name already; a name can only stand for one upstream"},
		{"one virtual host twice", "c.yaml", "upstreams:\n- name: a.b\n  hosts: [m.lan]\n- name: c.d\n  hosts: [m.lan]\n", "c.yaml:5: upstreams[1].hosts[0]: \"m.lan\" is upstreams[0].hosts[0] already; a name can only stand for one upstream"},
		{"a virtual host with a port", "c.yaml", "upstreams: [{name: a.b, hosts: [\"m.lan:80\"]}]\n", "c.yaml:1: upstreams[0].hosts[0]: \"m.lan:80\" has a port; did you mean m.lan? It applies to every port"},
		{"a virtual host that is the address of all", "c.yaml", "listen: Mirror.lan:5000\nupstreams:\n- name: a.b\n- name: c.d\n  hosts: [c.lan, mirror.lan]\n", "c.yaml:5: upstreams[1].hosts[1]: \"mirror.lan\" is the address that all clients come by: unless they say which registry they mean, they would get c.d; write a host name of its own, such as ghcr.mirror.example.com, or remove it"},
		{"a virtual host that is the IPv6 address of all", "c.yaml", "listen: \"[fd00:0::1]:5000\"\nupstreams: [{name: a.b, hosts: [\"[fd00::1]\"]}]\n", "c.yaml:2: upstreams[0].hosts[0]: \"[fd00::1]\" is the address that all clients come by: unless they say which registry they mean, they would get a.b; write a host name of its own, such as ghcr.mirror.example.com, or remove it"},
		{"two defaults", "c.yaml", "upstreams:\n- name: a.b\n  default: true\n- name: c.d\n  default: true\n", "c.yaml:5: upstreams[1].default: is a second default upstream; keep only one; upstreams[0] is the first"},
		{"an endpoint without a scheme", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"a.b:5000\"]}]\n", "c.yaml:1: upstreams[0].endpoints[0]: \"a.b:5000\" has no scheme; did you mean https://a.b:5000?"},
		{"an endpoint of another scheme", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"htps://a.b\"]}]\n", "c.yaml:1: upstreams[0].endpoints[0]: unknown scheme \"htps\"; did you mean https://a.b?"},
		{"an endpoint that is no URL", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"https://%zz\"]}]\n", "c.yaml:1: upstreams[0].endpoints[0]: \"https://%zz\" is not a URL; write a URL such as https://registry.example.com"},
		{"an endpoint without a host", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"https:///x\"]}]\n", "c.yaml:1: upstreams[0].endpoints[0]: \"https:///x\" names no host; write a URL such as https://registry.example.com"},
		{"an endpoint with a query", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"https://a.b?x=y\"]}]\n", "c.yaml:1: upstreams[0].endpoints[0]: has a query or a fragment; write a URL such as https://registry.example.com"},
		{"an endpoint with a user", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"https://me@a.b/v2/hub\"]}]\n", "c.yaml:1: upstreams[0].endpoints[0]: contains a user name or password; move them to credentials.username and credentials.password_file"},
		{"an endpoint with a fragment behind its path", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"https://a.b/v2/hub#x\"]}]\n", "c.yaml:1: upstreams[0].endpoints[0]: has a query or a fragment; write a URL such as https://registry.example.com"},
		{"an endpoint with a hole in its path", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"https://a.b/v2//hub\"]}]\n", "c.yaml:1: upstreams[0].endpoints[0]: \"https://a.b/v2//hub\" has an empty segment or dots in its path; write the path without them"},
		{"an endpoint with dots before the API", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"https://a.b/x/../v2/hub\"]}]\n", "c.yaml:1: upstreams[0].endpoints[0]: \"https://a.b/x/../v2/hub\" has an empty segment or dots in its path; write the path without them"},
		{"an endpoint below a path in capitals", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"https://a.b/Base/v2/Docker-Hub/\"]}]\n", "c.yaml:1: upstreams[0].endpoints[0]: \"https://a.b/Base/v2/Docker-Hub/\" has upper-case letters after /v2/; repositories are lower-case: did you mean https://a.b/Base/v2/docker-hub?"},
		{"an endpoint below what no repository begins with", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"https://a.b/v2/_catalog\"]}]\n", "c.yaml:1: upstreams[0].endpoints[0]: \"https://a.b/v2/_catalog\" can't hold repositories: none begins with \"_catalog\"; after /v2/ write the prefix of the repositories, as in https://harbor.example.com/v2/dockerhub-proxy"},
		{"an endpoint below a path that is escaped", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"https://a.b/v2/a%2fb\"]}]\n", "c.yaml:1: upstreams[0].endpoints[0]: \"https://a.b/v2/a%2fb\" can't hold repositories: none begins with \"a%2fb\"; after /v2/ write the prefix of the repositories, as in https://harbor.example.com/v2/dockerhub-proxy"},
		{"an endpoint below a tag", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"https://a.b/v2/hub/alpine:3\"]}]\n", "c.yaml:1: upstreams[0].endpoints[0]: \"https://a.b/v2/hub/alpine:3\" can't hold repositories: none begins with \"hub/alpine:3\"; after /v2/ write the prefix of the repositories, as in https://harbor.example.com/v2/dockerhub-proxy"},
		{"one endpoint twice, once with the API's own path", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"https://a.b\", \"https://a.b/v2/\"]}]\n", "c.yaml:1: upstreams[0].endpoints[1]: is upstreams[0].endpoints[0] again; remove it"},
		{"one endpoint twice", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"https://a.b\", \"https://a.b/\"]}]\n", "c.yaml:1: upstreams[0].endpoints[1]: is upstreams[0].endpoints[0] again; remove it"},
		{"entrepot as its own upstream", "c.yaml", "upstreams: [{name: a.b, endpoints: [\"http://localhost:5000\"]}]\n", "c.yaml:1: upstreams[0].endpoints[0]: is entrepot's own address; write the registry's address"},
		{"a realm that is a URL", "c.yaml", "upstreams: [{name: a.b, trusted_realms: [\"https://auth.a.b/token\"]}]\n", "c.yaml:1: upstreams[0].trusted_realms[0]: \"https://auth.a.b/token\" is not a host in lower case; did you mean auth.a.b?"},
		{"a user without a password", "c.yaml", "upstreams: [{name: a.b, credentials: {username: x}}]\n", "c.yaml:1: upstreams[0].credentials.username: has no password; set password_file as well"},
		{"a password without a user", "c.yaml", "upstreams: [{name: a.b, credentials: {password_file: x}}]\n", "c.yaml:1: upstreams[0].credentials.password_file: has no user name; set username as well"},
		{"a password that can't be read", "c.yaml", "upstreams: [{name: a.b, credentials: {username: x, password_file: y}}]\n", "c.yaml:1: upstreams[0].credentials.password_file: \"y\" cannot be read: no such file or directory"},
		{"an empty password", "c.yaml", "upstreams: [{name: a.b, credentials: {username: x, password_file: empty}}]\n", "c.yaml:1: upstreams[0].credentials.password_file: \"empty\" is empty; write the password into it"},
		{"two ways to credentials", "c.yaml", "upstreams: [{name: a.b, credentials: {username: x, password_file: y, docker_config: true}}]\n", "c.yaml:1: upstreams[0].credentials.docker_config: is set together with username or password_file; keep only one of the two"},
		{"an authority that can't be read", "c.yaml", "upstreams: [{name: a.b, tls: {ca_file: x}}]\n", "c.yaml:1: upstreams[0].tls.ca_file: \"x\" cannot be read: no such file or directory"},
		{"an authority that is none", "c.yaml", "upstreams: [{name: a.b, tls: {ca_file: c.yaml}}]\n", "c.yaml:1: upstreams[0].tls.ca_file: \"c.yaml\" contains no certificate; name a PEM file with certificates"},
		{"no request at once", "c.yaml", "upstreams:\n- name: a.b\n  max_requests: 0\n", "c.yaml:3: upstreams[0].max_requests: is 0: nothing can be pulled; write at least 1"},
		{"no connection", "c.yaml", "upstreams:\n- name: a.b\n  connections_per_blob: 0\n", "c.yaml:3: upstreams[0].connections_per_blob: is 0; write 1, for one connection, to 16"},
		{"too many connections", "c.yaml", "upstreams:\n- name: a.b\n  connections_per_blob: 17\n", "c.yaml:3: upstreams[0].connections_per_blob: is 17; write 1, for one connection, to 16"},
		{"a number that is none", "c.yaml", "upstreams: [{name: a.b, max_requests: 1.5}]\n", "c.yaml:1: upstreams[0].max_requests: \"1.5\" is not a whole number; write a number such as 32"},
		{"a time in which nothing can come", "c.yaml", "upstreams:\n- name: a.b\n  timeouts:\n    header: 0s\n", "c.yaml:4: upstreams[0].timeouts.header: is 0s: it must be at least 1s and at most 5m; write a duration such as 60s"},
		{"times that nobody waits", "c.yaml", "upstreams: [{name: a.b, timeouts: {connect: -5s, idle: 1h}}]\n", "c.yaml:1: upstreams[0].timeouts.connect: is -5s: it must be at least 1s and at most 5m; write a duration such as 5s\nc.yaml:1: upstreams[0].timeouts.idle: is 1h: it must be at least 1s and at most 5m; write a duration such as 60s"},
		{"nothing allowed", "c.yaml", "upstreams: [{name: a.b, allow: []}]\n", "c.yaml:1: upstreams[0].allow: is empty: nothing can be pulled; remove it to allow everything"},
		{"a pattern with the registry's name", "c.yaml", "upstreams: [{name: a.b, deny: [a.b/org/**]}]\n", "c.yaml:1: upstreams[0].deny[0]: \"a.b/org/**\" matches no repository; remove the registry's name: did you mean org/**?"},
		{"a pattern with a tag", "c.yaml", "upstreams: [{name: a.b, allow: [\"org/app:1\"]}]\n", "c.yaml:1: upstreams[0].allow[0]: \"org/app:1\" matches no repository; repositories have no tag or digest: did you mean org/app?"},
		{"a pattern in capitals", "c.yaml", "upstreams: [{name: a.b, allow: [Org/*]}]\n", "c.yaml:1: upstreams[0].allow[0]: \"Org/*\" matches no repository; repositories are lower-case: did you mean org/*?"},
		{"a pattern with ** inside a segment", "c.yaml", "upstreams: [{name: a.b, allow: [org**]}]\n", "c.yaml:1: upstreams[0].allow[0]: \"org**\" matches no repository; ** stands alone between slashes: any path; * is any part of one segment"},
		{"a pattern with an empty segment", "c.yaml", "upstreams: [{name: a.b, allow: [org//app]}]\n", "c.yaml:1: upstreams[0].allow[0]: \"org//app\" matches no repository; write a pattern such as org/** or library/*"},
		{"a one-word pattern for docker.io", "c.yaml", "upstreams: [{name: docker.io, allow: [alpine]}]\n", "c.yaml:1: upstreams[0].allow[0]: \"alpine\" matches no repository; did you mean library/alpine?"},
		{"a pattern of tags with a slash", "c.yaml", "upstreams: [{name: a.b, immutable_tags: [a/b]}]\n", "c.yaml:1: upstreams[0].immutable_tags[0]: \"a/b\" matches no tag; write a pattern of tags such as v*.*.*"},

		{"a table below the second of a list in TOML", "c.toml", "[[upstreams]]\nname = 'a.b'\n[[upstreams]]\nname = 'c.d'\n[upstreams.credentials]\nusername = 'x'\n", "c.toml:6: upstreams[1].credentials.username: has no password; set password_file as well"},
		{"an alias, at the line that uses it", "c.yaml", "upstreams:\n- name: a.b\n  immutable_tags: [&t v*]\n  allow:\n  - ok\n  - *t\n- name: c.d\n  deny:\n  - x\n  - &p Not\n- name: e.f\n  deny:\n  - *p\n", "c.yaml:10: upstreams[1].deny[1]: \"Not\" matches no repository; repositories are lower-case: did you mean not?\nc.yaml:13: upstreams[2].deny[0]: \"Not\" matches no repository; repositories are lower-case: did you mean not?"},
		{"several mistakes, by line", "c.toml", "offlin = true\n\n[cache]\nmemory = '0'\n[[upstreams]]\nname = 'a.b'\n[[upstreams]]\nname = 'a.b'\nallow = [\n  'ok',\n  'Not',\n]\n", "c.toml:1: offlin: unknown key; did you mean offline?\nc.toml:4: cache.memory: is less than 1MiB; write a size such as 256MiB\nc.toml:8: upstreams[1].name: \"a.b\" is upstreams[0].name already; a name can only stand for one upstream\nc.toml:11: upstreams[1].allow[1]: \"Not\" matches no repository; repositories are lower-case: did you mean not?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			clean(t)
			write(t, c.file, c.content)
			if err := os.WriteFile("empty", []byte("\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, _, err := Load(Options{File: c.file})
			var mistakes Mistakes
			if !errors.As(err, &mistakes) {
				t.Fatalf("got %v, want Mistakes", err)
			}
			_, got, _ := strings.Cut(err.Error(), "\n")
			if got != "  "+strings.ReplaceAll(c.want, "\n", "\n  ") {
				t.Errorf("got\n%s\nwant\n  %s", got, c.want)
			}
		})
	}
}

func TestLoadNeverShowsThePasswordOfAnEndpoint(t *testing.T) {
	for _, endpoint := range []string{"https://someone:sesame@a.b", "https://someone:sesame@a.b:%zz", "someone:sesame@a.b", "https://a.b/?x=sesame", "https://a.b/#sesame"} {
		t.Run(endpoint, func(t *testing.T) {
			clean(t)
			_, _, err := Load(Options{File: write(t, "c.yaml", "upstreams: [{name: a.b, endpoints: [\""+endpoint+"\"]}]\n")})
			if err == nil || strings.Contains(err.Error(), "sesame") {
				t.Errorf("got %v, want a mistake without the password", err)
			}
		})
	}
}

func TestLoadReportsMistakesOfTheFileThenOfVariablesThenOfFlags(t *testing.T) {
	clean(t)
	file := write(t, "c.yaml", "offline: perhaps\nlog: {level: loud}\n")
	t.Setenv("ENTREPOT_CACHE_MAX_SIZE", "big")
	t.Setenv("ENTREPOT_LISTN", ":1")
	t.Setenv("ENTREPOT_MAX_SIZE", "1GB")
	t.Setenv("ENTREPOT_UPSTREAMS", "ghcr.io")
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse([]string{"--listen", "here", "--log-level=quiet"}); err != nil {
		t.Fatal(err)
	}
	_, _, err := Load(Options{File: file, Environment: true, Flags: flags})
	const want = `the configuration has 7 mistakes:
  c.yaml:1: offline: "perhaps" is neither true nor false; write true or false
  ENTREPOT_LISTN: unknown environment variable; did you mean ENTREPOT_LISTEN?
  ENTREPOT_MAX_SIZE: unknown environment variable; did you mean ENTREPOT_CACHE_MAX_SIZE?
  ENTREPOT_UPSTREAMS: upstreams can't be set by an environment variable; set them in a file, named by --config or ENTREPOT_CONFIG
  ENTREPOT_CACHE_MAX_SIZE: cache.max_size: "big" is not a size; write a size such as 50GiB, 1GB or 80%
  --listen: listen: "here" is not host:port; did you mean here:5000?
  --log-level: log.level: unknown value "quiet"; write debug, info, warn or error`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestLoadNamesAFileThatCannotBeRead(t *testing.T) {
	clean(t)
	t.Chdir(t.TempDir())
	if err := os.Mkdir("folder.yaml", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("huge.yaml", make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"none.yaml":   "none.yaml: cannot be read: no such file or directory",
		"folder.yaml": "folder.yaml: cannot be read: is a directory",
		"huge.yaml":   "huge.yaml: cannot be read: larger than 4MiB",
	} {
		_, _, err := Load(Options{File: file})
		if err == nil || err.Error() != "the configuration has a mistake:\n  "+want {
			t.Errorf("%s: got %v, want %s", file, err, want)
		}
	}
}

func TestAnItemOfAVariableIsReportedAtTheVariable(t *testing.T) {
	clean(t)
	t.Setenv("ENTREPOT_ADMIN_HOSTS", "a.lan,B.lan")
	t.Setenv("ENTREPOT_PINS", "docker.io/library/alpine:3, alpine")
	_, _, err := Load(Options{Environment: true})
	const want = `the configuration has 2 mistakes:
  ENTREPOT_ADMIN_HOSTS: admin_hosts[1]: "B.lan" is not a host in lower case; did you mean b.lan?
  ENTREPOT_PINS: pins[1]: "alpine" names no repository of an upstream; write it as docker.io/library/alpine:3.*, ghcr.io/org/** or quay.io/org/app@sha256:…`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestAVariableThatMeansNothingIsAMistake(t *testing.T) {
	const somewhere = "unset it, or name a key, as in ENTREPOT_CACHE_DIR, which is cache.dir"
	for assignment, want := range map[string]string{
		"ENTREPOT_GREETING=hello":                 "ENTREPOT_GREETING: unknown environment variable; " + somewhere,
		"ENTREPOT_PIN=a":                          "ENTREPOT_PIN: unknown environment variable; did you mean ENTREPOT_PINS?",
		"ENTREPOT_TAG_TTL=1m":                     "ENTREPOT_TAG_TTL: unknown environment variable; did you mean ENTREPOT_FRESHNESS_TAG_TTL?",
		"ENTREPOT_PORT=5000":                      "ENTREPOT_PORT: unknown environment variable; " + somewhere,
		"ENTREPOT_SERVICE_HOST=entrepot.lan":      "ENTREPOT_SERVICE_HOST: unknown environment variable; " + somewhere,
		"ENTREPOT_SERVICE_PORT=http":              "ENTREPOT_SERVICE_PORT: unknown environment variable; " + somewhere,
		"ENTREPOT_PORT_5000_TCP_PROTO=http":       "ENTREPOT_PORT_5000_TCP_PROTO: unknown environment variable; " + somewhere,
		"ENTREPOT_PORT_5000_HTTP=tcp://10.0.0.1":  "ENTREPOT_PORT_5000_HTTP: unknown environment variable; " + somewhere,
		"ENTREPOT_PINS=,":                         `ENTREPOT_PINS: pins: "," has an empty item; write the items of the list, or unset it`,
		"ENTREPOT_PINS=ghcr.io/a/b ghcr.io/c/d":   `ENTREPOT_PINS: pins[0]: "ghcr.io/a/b ghcr.io/c/d" contains a space; separate items by commas: ghcr.io/a/b,ghcr.io/c/d`,
		"ENTREPOT_ADMIN_HOSTS=b.lan,a.lan\nc.lan": `ENTREPOT_ADMIN_HOSTS: admin_hosts[1]: "a.lan\nc.lan" contains a space; separate items by commas: a.lan,c.lan`,
		`ENTREPOT_PINS=["ghcr.io/a/b"]`:           `ENTREPOT_PINS: pins[0]: "[\"ghcr.io/a/b\"]" is no pattern of images; write it as docker.io/library/alpine:3.*, ghcr.io/org/** or quay.io/org/app@sha256:…`,
		"ENTREPOT_UPSTREAMS_0_NAME=ghcr.io":       "ENTREPOT_UPSTREAMS_0_NAME: upstreams can't be set by an environment variable; set them in a file, named by --config or ENTREPOT_CONFIG",
	} {
		t.Run(assignment, func(t *testing.T) {
			clean(t)
			name, value, _ := strings.Cut(assignment, "=")
			t.Setenv(name, value)
			_, _, err := Load(Options{File: write(t, "c.yaml", "pins: [ghcr.io/org/a]\n"), Environment: true})
			if want = "the configuration has a mistake:\n  " + want; err == nil || err.Error() != want {
				t.Errorf("got\n%v\nwant\n%s", err, want)
			}
		})
	}
}
