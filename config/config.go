// Package config defines the configuration: its schema and defaults, how it is
// loaded from a file, the environment and flags, and checks that report all
// mistakes at once. It creates nothing and opens no connections.
package config

import "time"

// Config is the whole configuration. The key tags are the names in files. The
// path of a key joins them with dots, as in cache.max_size.
type Config struct {
	// Listen is the address for clients, host:port. Without a host it means all
	// addresses of the machine, and port 0 means any free port.
	Listen string `key:"listen"`
	// Admin is the address for health, metrics and status: host:port, or
	// unix:// and the absolute path of a socket.
	Admin string `key:"admin"`
	// AdminHosts are names and IP addresses, without a port, under which the
	// admin address answers, in addition to loopback and the address it listens
	// on.
	AdminHosts []string `key:"admin_hosts"`
	// AdminTokenFile is the file with the token that lets other machines change
	// the cache. Without it, only this machine may.
	AdminTokenFile string `key:"admin_token_file"`
	// ClientHosts are names and IP addresses, without a port, under which clients
	// are answered by a listener on loopback, in addition to loopback, to virtual
	// hosts and to the names of upstreams; see [Config.KnowsHosts].
	ClientHosts []string `key:"client_hosts"`
	// ClientNetworks are the networks, as CIDRs, from which clients are answered.
	// None means all.
	ClientNetworks []string `key:"client_networks"`
	// ClientIdle is how long a client may read nothing of an answer before it is
	// disconnected, and ClientKeepAlive how long its connection may be idle
	// between requests.
	ClientIdle      time.Duration `key:"client_idle"`
	ClientKeepAlive time.Duration `key:"client_keep_alive"`

	TLS       TLS       `key:"tls"`
	Cache     Cache     `key:"cache"`
	Freshness Freshness `key:"freshness"`
	Offline   bool      `key:"offline"` // true: no upstream is ever contacted
	Log       Log       `key:"log"`
	// Pins are patterns of images that are never evicted; see [ParsePin].
	Pins      []string   `key:"pins"`
	Upstreams []Upstream `key:"upstreams"`
}

// TLS names the certificate of the listener for clients. Both files are empty
// for plain HTTP.
type TLS struct {
	CertFile string `key:"cert_file"` // PEM, with intermediates
	KeyFile  string `key:"key_file"`  // PEM
}

// Cache says where content is stored, and how much of it.
type Cache struct {
	Dir     string `key:"dir"`
	MaxSize Size   `key:"max_size"` // of everything on disk
	MinFree Size   `key:"min_free"` // to leave free on the file system
	Memory  Size   `key:"memory"`   // of small content in memory; never a percentage
	// ScrubRate is how many bytes the background scrub reads per second; 0
	// turns it off. It is never a percentage.
	ScrubRate Size `key:"scrub_rate"`
	// VerifyEvery is how long a piece of a large blob counts as checked after
	// it was checked before sending; 0 checks it each time.
	VerifyEvery time.Duration `key:"verify_every"`
}

// Freshness says how long answers that can change are used.
type Freshness struct {
	TagTTL       time.Duration `key:"tag_ttl"`       // 0: checked at each pull
	ReferrersTTL time.Duration `key:"referrers_ttl"` // 0: checked each time
	NegativeTTL  time.Duration `key:"negative_ttl"`  // how long "not found" is remembered
	MaxWait      time.Duration `key:"max_wait"`      // how long a check may delay a cached answer
	// Deleted says what happens to a cached tag that the upstream deletes:
	// forget it, or serve it with a warning.
	Deleted string `key:"deleted"`
}

// Log says what is logged to standard error.
type Log struct {
	Level  string `key:"level"`  // debug, info, warn or error
	Format string `key:"format"` // text or json
}

// Upstream is a registry that entrepot pulls from.
type Upstream struct {
	// Name is the name that clients use: a host, with a port if it has one.
	Name string `key:"name"`
	// Endpoints are the URLs to request from, in order, without a trailing
	// slash; see [Place].
	Endpoints []string `key:"endpoints"`
	Aliases   []string `key:"aliases"` // other names of this upstream
	Hosts     []string `key:"hosts"`   // virtual hosts of this upstream
	// Default marks the upstream for requests that name none.
	Default     bool        `key:"default"`
	Credentials Credentials `key:"credentials"`
	TLS         UpstreamTLS `key:"tls"`
	// TrustedRealms are hosts outside of the registry's domain whose token
	// servers may get the credentials.
	TrustedRealms []string `key:"trusted_realms"`
	// AllowPrivateRedirects allows a registry with a public address to redirect
	// to a private one.
	AllowPrivateRedirects bool `key:"allow_private_redirects"`
	// Allow and Deny are patterns of repositories; see [Match]. Deny wins.
	Allow       []string `key:"allow"`
	Deny        []string `key:"deny"`
	MaxRequests int      `key:"max_requests"` // concurrent
	// ConnectionsPerBlob is how many of them may fetch one blob side by side.
	ConnectionsPerBlob int      `key:"connections_per_blob"`
	Timeouts           Timeouts `key:"timeouts"`
	// ImmutableTags are patterns of tags that are never checked again.
	ImmutableTags []string `key:"immutable_tags"`
	// Deleted is freshness.deleted for this upstream.
	Deleted   string    `key:"deleted"`
	Referrers Referrers `key:"referrers"`
	Offline   bool      `key:"offline"` // true: it is never contacted
}

// What happens to a cached tag that the upstream deletes.
const (
	DeletedForget = "forget"
	DeletedServe  = "serve"
)

// Credentials authenticate entrepot to an upstream: with a user name and a file
// that holds the password, with Docker's config.json, or not at all.
type Credentials struct {
	Username     string `key:"username"`
	PasswordFile string `key:"password_file"`
	DockerConfig bool   `key:"docker_config"`
}

// Timeouts say how long requests to an upstream wait. Clients wait for a status
// for less than 20 s, whatever stands here; the request goes on behind them.
type Timeouts struct {
	Connect time.Duration `key:"connect"` // for a connection, and as long for its TLS handshake
	Header  time.Duration `key:"header"`  // for the first header of a response
	Idle    time.Duration `key:"idle"`    // while nothing of a body arrives
}

// UpstreamTLS says which certificates are trusted in addition to the system's.
type UpstreamTLS struct {
	CAFile             string `key:"ca_file"` // PEM
	InsecureSkipVerify bool   `key:"insecure_skip_verify"`
}

// Referrers says which attachments without a subject count as referrers.
type Referrers struct {
	CosignTags           bool `key:"cosign_tags"`
	BuildKitAttestations bool `key:"buildkit_attestations"`
}

// Allows reports whether the repository, as the upstream names it, may be
// pulled.
func (u Upstream) Allows(repository string) bool {
	return matchesAny(u.Allow, repository) && !matchesAny(u.Deny, repository)
}

// Immutable reports whether the tag is never checked again.
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
