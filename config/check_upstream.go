package config

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (r *report) checkUpstreams(cfg *Config) {
	if len(cfg.Upstreams) == 0 {
		r.add("upstreams", "is empty: there is nothing to pull from", "name an upstream, or remove the key for the public registries")
	}
	names, hosts := map[string]string{}, map[string]string{}
	firstDefault := ""
	for i := range cfg.Upstreams {
		u, path := &cfg.Upstreams[i], at("upstreams", i)
		r.checkName(path+".name", u.Name)
		r.unique(names, path+".name", u.Name)
		for j, alias := range u.Aliases {
			r.checkName(at(path+".aliases", j), alias)
			r.unique(names, at(path+".aliases", j), alias)
		}
		for j, host := range u.Hosts {
			r.checkHostWithoutPort(at(path+".hosts", j), host, "ghcr.mirror.example.com")
			r.unique(hosts, at(path+".hosts", j), host)
		}
		for j, realm := range u.TrustedRealms {
			r.checkHost(at(path+".trusted_realms", j), realm, "auth.example.com")
		}
		if u.Default && firstDefault != "" {
			r.add(path+".default", "is a second default upstream", "keep only one; "+firstDefault+" is the first")
		} else if u.Default {
			firstDefault = path
		}
		r.checkEndpoints(path+".endpoints", u, cfg)
		r.checkCredentials(path+".credentials", u.Credentials)
		r.checkCA(path+".tls.ca_file", u.TLS.CAFile)
		r.checkPatterns(path, u)
		if u.Deleted != cfg.Freshness.Deleted { // otherwise it has been checked there
			r.checkChoice(path+".deleted", u.Deleted, DeletedForget, DeletedServe)
		}
		if u.MaxRequests < 1 {
			r.add(path+".max_requests", "is "+strconv.Itoa(u.MaxRequests)+": nothing can be pulled", "write at least 1")
		}
		if u.ConnectionsPerBlob < 1 || u.ConnectionsPerBlob > maxConnectionsPerBlob {
			r.add(path+".connections_per_blob", "is "+strconv.Itoa(u.ConnectionsPerBlob), "write 1, for one connection, to "+strconv.Itoa(maxConnectionsPerBlob))
		}
		r.checkTimeouts(path+".timeouts", u.Timeouts)
	}
}

// maxConnectionsPerBlob is more than any registry gains from.
const maxConnectionsPerBlob = 16

// Bounds of what can be waited for. Below them a healthy upstream fails. Above
// them nobody waits: containerd ends a pull without progress after five minutes.
const (
	minTimeout = time.Second
	maxTimeout = 5 * time.Minute
)

func (r *report) checkTimeouts(path string, t Timeouts) {
	for _, timeout := range []struct {
		key   string
		value time.Duration
		usual string
	}{{"connect", t.Connect, "5s"}, {"header", t.Header, "60s"}, {"idle", t.Idle, "60s"}} {
		if timeout.value < minTimeout || timeout.value > maxTimeout {
			r.add(path+"."+timeout.key, "is "+durationText(timeout.value)+": it must be at least "+durationText(minTimeout)+" and at most "+durationText(maxTimeout), "write a duration such as "+timeout.usual)
		}
	}
}

func (r *report) unique(taken map[string]string, key, value string) {
	if value == "" {
		return
	}
	if first, ok := taken[value]; ok {
		r.add(key, quoted(value)+" is "+first+" already", "a name can only stand for one upstream")
		return
	}
	taken[value] = key
}

func (r *report) checkName(key, name string) {
	if name == "" {
		r.add(key, "is missing", "write the name that clients use for the registry, such as ghcr.io")
		return
	}
	host, repositories, hasPath := strings.Cut(name, "/")
	if hasPath && repositories != "" && !strings.Contains(name, "://") {
		r.add(key, quoted(name)+" names repositories as well", "write "+host+", and allow: [\""+repositories+"/**\"]")
		return
	}
	r.checkHost(key, name, "ghcr.io")
}

// checkHost checks a lower-case host, with or without a port.
func (r *report) checkHost(key, text, example string) {
	if isHostPort(text) {
		return
	}
	fix := "write a host such as " + example
	bare := strings.ToLower(text)
	if _, after, ok := strings.Cut(bare, "://"); ok {
		bare = after
	}
	bare, _, _ = strings.Cut(bare, "/")
	if isHostPort(bare) {
		fix = "did you mean " + bare + "?"
	}
	r.add(key, quoted(text)+" is not a host in lower case", fix)
}

// checkHostWithoutPort checks a host that applies to every port.
func (r *report) checkHostWithoutPort(key, host, example string) {
	if name, _, err := net.SplitHostPort(host); err == nil && isHostPort(host) {
		r.add(key, quoted(host)+" has a port", "did you mean "+name+"? It applies to every port")
		return
	}
	r.checkHost(key, host, example)
}

func isHostPort(text string) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"), "1"
		if strings.Contains(host, ":") && host == text {
			return false // an IPv6 address needs brackets
		}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	return err == nil && number > 0 && text == strings.ToLower(text) && isHost(host)
}

func (r *report) checkEndpoints(path string, u *Upstream, cfg *Config) {
	if _, given := r.places[path]; !given {
		return // derived from the name
	}
	for i := range u.Endpoints {
		key := at(path, i)
		r.checkEndpoint(key, &u.Endpoints[i], cfg)
		if first := slices.Index(u.Endpoints, u.Endpoints[i]); first != i {
			r.add(key, "is "+at(path, first)+" again", "remove it")
		}
	}
}

func (r *report) checkEndpoint(key string, endpoint *string, cfg *Config) {
	const example = "write a URL such as https://registry.example.com"
	if strings.Contains(*endpoint, "@") { // not shown, because it may contain a password
		r.add(key, "contains a user name or password", "move them to credentials.username and credentials.password_file")
		return
	}
	parsed, err := url.Parse(*endpoint)
	if !strings.Contains(*endpoint, "://") {
		fix := example
		if host, _, _ := strings.Cut(*endpoint, "/"); isHostPort(host) {
			fix = "did you mean https://" + *endpoint + "?"
		}
		r.add(key, quoted(*endpoint)+" has no scheme", fix)
		return
	}
	switch {
	case err != nil:
		r.add(key, quoted(*endpoint)+" is not a URL", example)
	case parsed.Scheme != "https" && parsed.Scheme != "http":
		fix := "write https:// or http://"
		if near := Nearest(parsed.Scheme, []string{"https", "http"}); near != "" {
			fix = "did you mean " + near + "://" + parsed.Host + parsed.Path + "?"
		}
		r.add(key, "unknown scheme "+quoted(parsed.Scheme), fix)
	case !isHostPort(strings.ToLower(parsed.Host)):
		r.add(key, quoted(*endpoint)+" names no host", example)
	case parsed.RawQuery != "" || parsed.Fragment != "":
		r.add(key, "has a query or a fragment", example)
	case parsed.Scheme == "http" && sameSocket(cfg.Listen, parsed.Host) && cfg.TLS.CertFile == "":
		r.add(key, "is entrepot's own address", "write the registry's address")
	default:
		place, err := PlaceOf(*endpoint)
		if err != nil {
			r.add(key, quoted(*endpoint)+" is not a URL", example)
		} else if r.checkPlace(key, *endpoint, place) {
			*endpoint = place.String()
		}
	}
}

func (r *report) checkCredentials(path string, c Credentials) {
	switch {
	case c.DockerConfig && (c.Username != "" || c.PasswordFile != ""):
		r.add(path+".docker_config", "is set together with username or password_file", "keep only one of the two")
	case c.Username != "" && c.PasswordFile == "":
		r.add(path+".username", "has no password", "set password_file as well")
	case c.Username == "" && c.PasswordFile != "":
		r.add(path+".password_file", "has no user name", "set username as well")
	case c.PasswordFile != "":
		content, err := readAtMost(c.PasswordFile, 64<<10)
		if err != nil {
			r.add(path+".password_file", quoted(c.PasswordFile)+" "+readError(err), "")
		} else if strings.TrimSpace(string(content)) == "" {
			r.add(path+".password_file", quoted(c.PasswordFile)+" is empty", "write the password into it")
		}
	}
}

func (r *report) checkCA(key, file string) {
	if file == "" {
		return
	}
	content, err := readAtMost(file, maxFile)
	if err != nil {
		r.add(key, quoted(file)+" "+readError(err), "")
	} else if !x509.NewCertPool().AppendCertsFromPEM(content) {
		r.add(key, quoted(file)+" contains no certificate", "name a PEM file with certificates")
	}
}

// The grammars of repositories and tags in distribution-spec, "Pulling
// manifests".
var (
	patternSegment = regexp.MustCompile(`^[a-z0-9*]+((\.|_|__|-+)[a-z0-9*]+)*$`)
	tagPattern     = regexp.MustCompile(`^[A-Za-z0-9_*][A-Za-z0-9._*-]{0,127}$`)
)

func (r *report) checkPatterns(path string, u *Upstream) {
	if len(u.Allow) == 0 {
		r.add(path+".allow", "is empty: nothing can be pulled", "remove it to allow everything")
	}
	for i, pattern := range u.Allow {
		r.checkPattern(at(path+".allow", i), pattern, u)
	}
	for i, pattern := range u.Deny {
		r.checkPattern(at(path+".deny", i), pattern, u)
	}
	for i, pattern := range u.ImmutableTags {
		if !tagPattern.MatchString(pattern) {
			r.add(at(path+".immutable_tags", i), quoted(pattern)+" matches no tag", "write a pattern of tags such as v*.*.*")
		}
	}
}

func (r *report) checkPattern(key, pattern string, u *Upstream) {
	never := func(fix string) { r.add(key, quoted(pattern)+" matches no repository", fix) }
	for _, name := range append([]string{u.Name}, u.Aliases...) {
		if rest, ok := strings.CutPrefix(pattern, name+"/"); ok && name != "" {
			never("remove the registry's name: did you mean " + rest + "?")
			return
		}
	}
	segments := strings.Split(pattern, "/")
	for _, segment := range segments {
		switch {
		case segment == "**" || patternSegment.MatchString(segment) && !strings.Contains(segment, "**"):
		case strings.ContainsAny(segment, ":@"):
			repository, _, _ := strings.Cut(pattern, ":")
			repository, _, _ = strings.Cut(repository, "@")
			never("repositories have no tag or digest: did you mean " + repository + "?")
			return
		case strings.ToLower(pattern) != pattern:
			never("repositories are lower-case: did you mean " + strings.ToLower(pattern) + "?")
			return
		case strings.Contains(segment, "**"):
			never("** stands alone between slashes: any path; * is any part of one segment")
			return
		default:
			never("write a pattern such as org/** or library/*")
			return
		}
	}
	if u.Name == dockerHub && len(segments) == 1 && segments[0] != "**" {
		never(fmt.Sprintf("did you mean library/%s?", pattern))
	}
}
