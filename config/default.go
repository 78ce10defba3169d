package config

import (
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	dockerHub         = "docker.io"
	dockerHubEndpoint = "https://registry-1.docker.io"
)

// Default returns the configuration without a file, variables or flags: the
// public registries, on loopback. Cache.Dir is empty if the user has no cache
// folder.
func Default() Config {
	cfg := Config{
		Listen: "127.0.0.1:5000",
		Admin:  "127.0.0.1:5001",
		Cache: Cache{
			MaxSize:     Size{Bytes: 50 << 30},
			MinFree:     Size{Bytes: 1 << 30},
			Memory:      defaultMemory(0),
			VerifyEvery: time.Hour,
		},
		Freshness: Freshness{
			TagTTL:       time.Minute,
			ReferrersTTL: 5 * time.Minute,
			NegativeTTL:  30 * time.Second,
			MaxWait:      2 * time.Second,
			Deleted:      DeletedForget,
		},
		// A runtime that pauses behind a slow unpack is back within minutes.
		ClientIdle: 15 * time.Minute,
		// Balancers reuse a connection for 600 s: what is behind them has to keep
		// it for longer, or else a request meets a connection that is closing.
		ClientKeepAlive: 620 * time.Second,
		Log:             Log{Level: "info", Format: "text"},
		AdminHosts:      []string{},
		ClientHosts:     []string{},
		ClientNetworks:  []string{},
		Pins:            []string{},
	}
	if dir, err := os.UserCacheDir(); err == nil {
		cfg.Cache.Dir = filepath.Join(dir, "entrepot")
	}
	for _, name := range publicRegistries() {
		u := defaultUpstream()
		u.Name = name
		u.Default = name == dockerHub
		cfg.Upstreams = append(cfg.Upstreams, u)
	}
	completeUpstreams(cfg.Upstreams)
	return cfg
}

// maxDefaultMemory holds the manifests and small blobs of some thousand images.
const maxDefaultMemory = 256 << 20

// defaultMemory is the default of cache.memory in a process that may have limit
// bytes in all, or zero if that is not known. Downloads, connections and what
// the garbage collector has not collected yet take the rest.
func defaultMemory(limit int64) Size {
	if limit <= 0 || limit/4 >= maxDefaultMemory {
		return Size{Bytes: maxDefaultMemory}
	}
	return Size{Bytes: max(limit/4>>20<<20, leastMemory)}
}

// publicRegistries returns widely used registries, each by the host that images
// name. That is the host of its API, except for docker.io.
func publicRegistries() []string {
	return []string{
		dockerHub, "ghcr.io", "quay.io", "gcr.io", "registry.k8s.io", "mcr.microsoft.com",
		"public.ecr.aws", "nvcr.io", "registry.gitlab.com", "lscr.io",
		"mirror.gcr.io",              // Docker Hub's, for GKE, and Trivy's databases
		"us-docker.pkg.dev",          // Artifact Registry's, where Google's own images go
		"docker.elastic.co",          // Elasticsearch, Kibana, Beats
		"registry.access.redhat.com", // UBI
		"registry.fedoraproject.org",
		"registry.opensuse.org",
		"registry.suse.com",             // BCI, Rancher
		"container-registry.oracle.com", // Oracle Linux, MySQL
		"cgr.dev",                       // Chainguard
		"cr.fluentbit.io",
		"cr.l5d.io", // Linkerd
		"reg.kyverno.io",
		"xpkg.crossplane.io",
		"factory.talos.dev", // installers of Talos
	}
}

// defaultRealms returns the token servers of registries that use one outside of
// their own domain. All of these are gateways that pass on another registry
// with its challenge. (Scarf's redirects some clients, by their names, and
// passes on the requests of all others: scarf-sh/gateway, Rule/Docker.hs.)
func defaultRealms(name string) []string {
	switch name {
	case "lscr.io", "cr.l5d.io", "reg.kyverno.io", "xpkg.crossplane.io":
		return []string{"ghcr.io"}
	case "cr.fluentbit.io":
		return []string{"ghcr.io", "auth.docker.io"}
	}
	return nil
}

// defaultUpstream returns the defaults of an entry in upstreams.
func defaultUpstream() Upstream {
	return Upstream{
		Allow: []string{"**"}, MaxRequests: 32, ConnectionsPerBlob: 1, Deleted: DeletedForget,
		Timeouts: Timeouts{Connect: 5 * time.Second, Header: time.Minute, Idle: time.Minute},
	}
}

// dockerHubAliases returns other hosts that have always served docker.io.
func dockerHubAliases() []string { return []string{"index.docker.io", "registry-1.docker.io"} }

// completeUpstreams fills in what can be derived from an upstream's name.
func completeUpstreams(upstreams []Upstream) {
	taken := map[string]bool{}
	for _, u := range upstreams {
		taken[u.Name] = true
		for _, alias := range u.Aliases {
			taken[alias] = true
		}
	}
	for i := range upstreams {
		u := &upstreams[i]
		if u.Name == dockerHub && len(u.Aliases) == 0 {
			// docker.io is not the address of a registry, and its aliases are
			// the same for everybody, so that users need not know them.
			u.Aliases = slices.DeleteFunc(dockerHubAliases(), func(a string) bool { return taken[a] })
			for _, alias := range u.Aliases {
				taken[alias] = true
			}
		}
		if len(u.Endpoints) > 0 || u.Name == "" {
			continue
		}
		if u.Name == dockerHub {
			u.Endpoints = []string{dockerHubEndpoint}
		} else {
			u.Endpoints = []string{"https://" + u.Name}
			if len(u.TrustedRealms) == 0 {
				u.TrustedRealms = defaultRealms(u.Name)
			}
		}
	}
}
