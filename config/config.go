// Package config holds the schema of entrepot's configuration: its defaults,
// its strict loading from a file, the environment and flags, and a check that
// reports every mistake at once. It creates nothing and dials nobody.
package config

import "time"

// Config is the whole configuration. The key tags are the names in files; the
// path of a key joins them with dots, as in cache.max_size.
type Config struct {
	// Listen is the address for clients, host:port. No host means every
	// address of the machine, port 0 any free port.
	Listen string `key:"listen"`
	// Admin is the address for health, metrics and status, host:port.
	Admin string `key:"admin"`
	// AdminHosts are names and addresses, without a port, under which the admin
	// address answers beside loopback and the address it listens on.
	AdminHosts []string  `key:"admin_hosts"`
	TLS        TLS       `key:"tls"`
	Cache      Cache     `key:"cache"`
	Freshness  Freshness `key:"freshness"`
	Offline    bool      `key:"offline"` // true: no upstream is ever asked
	Log        Log       `key:"log"`
	// Pins are patterns of images that stay, whole; see [ParsePin].
	Pins      []string   `key:"pins"`
	Upstreams []Upstream `key:"upstreams"`
}

// TLS names the certificate of the listener for clients. Both files are empty
// where it speaks plain HTTP.
type TLS struct {
	CertFile string `key:"cert_file"` // PEM, with intermediates
	KeyFile  string `key:"key_file"`  // PEM
}

// Cache says where content is kept, and how much of it.
type Cache struct {
	Dir     string `key:"dir"`
	MaxSize Size   `key:"max_size"` // of everything kept on disk
	MinFree Size   `key:"min_free"` // left free on the file system
	Memory  Size   `key:"memory"`   // of small content kept in memory; never a share
	// ScrubRate is how much a second the background scrub reads of what is
	// kept; 0: there is none. Never a share.
	ScrubRate Size `key:"scrub_rate"`
	// VerifyEvery is how long a piece of a large blob that was checked before
	// it was sent counts as checked; 0: each is checked each time.
	VerifyEvery time.Duration `key:"verify_every"`
}

// Freshness says how long answers that can change are believed.
type Freshness struct {
	TagTTL       time.Duration `key:"tag_ttl"`       // 0: checked at every pull
	ReferrersTTL time.Duration `key:"referrers_ttl"` // 0: checked every time
	NegativeTTL  time.Duration `key:"negative_ttl"`  // how long "not found" is remembered
	MaxWait      time.Duration `key:"max_wait"`      // how long a check may hold up a kept answer
	// Deleted says what becomes of a kept tag that the upstream deletes: forget
	// it, or serve it with a warning.
	Deleted string `key:"deleted"`
}

// Log says what is logged to standard error.
type Log struct {
	Level  string `key:"level"`  // debug, info, warn or error
	Format string `key:"format"` // text or json
}

// Upstream is one registry that entrepot pulls from.
type Upstream struct {
	// Name is what clients call it: a host, with a port if it has one.
	Name string `key:"name"`
	// Endpoints are the URLs to ask, in order, without a trailing slash; see
	// [Place].
	Endpoints []string `key:"endpoints"`
	Aliases   []string `key:"aliases"` // other names that mean this upstream
	Hosts     []string `key:"hosts"`   // virtual hosts that mean this upstream
	// Default marks the upstream of requests that name none.
	Default     bool        `key:"default"`
	Credentials Credentials `key:"credentials"`
	TLS         UpstreamTLS `key:"tls"`
	// TrustedRealms are hosts outside of the registry's own domain whose token
	// servers may be sent the credentials.
	TrustedRealms []string `key:"trusted_realms"`
	// AllowPrivateRedirects lets a registry with a public address redirect to
	// a private one.
	AllowPrivateRedirects bool `key:"allow_private_redirects"`
	// Allow and Deny are patterns of repositories; see [Match]. Deny wins.
	Allow       []string `key:"allow"`
	Deny        []string `key:"deny"`
	MaxRequests int      `key:"max_requests"` // at once
	// ImmutableTags are patterns of tags that are never checked again.
	ImmutableTags []string `key:"immutable_tags"`
	// Deleted is freshness.deleted for this upstream.
	Deleted   string    `key:"deleted"`
	Referrers Referrers `key:"referrers"`
}

// What becomes of a kept tag that the upstream deletes.
const (
	DeletedForget = "forget"
	DeletedServe  = "serve"
)

// Credentials say who entrepot is to an upstream: a user name with a file that
// holds the password, or whatever Docker's config.json says, or nobody.
type Credentials struct {
	Username     string `key:"username"`
	PasswordFile string `key:"password_file"`
	DockerConfig bool   `key:"docker_config"`
}

// UpstreamTLS says whose certificates are believed beside the system's.
type UpstreamTLS struct {
	CAFile             string `key:"ca_file"` // PEM
	InsecureSkipVerify bool   `key:"insecure_skip_verify"`
}

// Referrers says which attachments without a subject count as referrers.
type Referrers struct {
	CosignTags           bool `key:"cosign_tags"`
	BuildKitAttestations bool `key:"buildkit_attestations"`
}

// Allows says whether the repository, in the words of the upstream, may be
// pulled.
func (u Upstream) Allows(repository string) bool {
	return matchesAny(u.Allow, repository) && !matchesAny(u.Deny, repository)
}

// Immutable says whether the tag is never checked again.
func (u Upstream) Immutable(tag string) bool {
	for _, pattern := range u.ImmutableTags {
		if MatchTag(pattern, tag) {
			return true
		}
	}
	return false
}

func matchesAny(patterns []string, repository string) bool {
	for _, pattern := range patterns {
		if Match(pattern, repository) {
			return true
		}
	}
	return false
}
