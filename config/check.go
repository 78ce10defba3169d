package config

import (
	"crypto/tls"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// check reports all merged values that can't work.
func (r *report) check(cfg *Config) {
	r.checkAddress("listen", cfg.Listen, "127.0.0.1:5000")
	r.checkAdmin("admin", cfg.Admin)
	if sameSocket(cfg.Listen, cfg.Admin) {
		r.add("admin", quoted(cfg.Admin)+" is also the address for clients", "write another port: metrics and status are not meant for clients")
	}
	for i, host := range cfg.AdminHosts {
		r.checkAdminHost(at("admin_hosts", i), host)
	}
	r.checkAdminToken("admin_token_file", cfg.AdminTokenFile)
	for i, host := range cfg.ClientHosts {
		r.checkClientHost(at("client_hosts", i), host)
	}
	for i, network := range cfg.ClientNetworks {
		r.checkNetwork(at("client_networks", i), network)
	}
	r.checkClientTime("client_idle", cfg.ClientIdle, "how long a client may read nothing, such as 15m")
	r.checkClientTime("client_keep_alive", cfg.ClientKeepAlive, "how long a connection may be idle, such as 620s")
	r.checkCertificate(cfg.TLS)
	r.checkCache(cfg.Cache)
	r.checkDuration("cache.verify_every", cfg.Cache.VerifyEvery)
	r.checkDuration("freshness.tag_ttl", cfg.Freshness.TagTTL)
	r.checkDuration("freshness.referrers_ttl", cfg.Freshness.ReferrersTTL)
	r.checkDuration("freshness.negative_ttl", cfg.Freshness.NegativeTTL)
	r.checkDuration("freshness.max_wait", cfg.Freshness.MaxWait)
	if cfg.Freshness.MaxWait == 0 {
		r.add("freshness.max_wait", "is 0: no upstream could answer in time", "write how long a client may wait, such as 2s")
	}
	r.checkChoice("freshness.deleted", cfg.Freshness.Deleted, DeletedForget, DeletedServe)
	r.checkChoice("log.level", cfg.Log.Level, "debug", "info", "warn", "error")
	r.checkChoice("log.format", cfg.Log.Format, "text", "json")
	r.checkUpstreams(cfg)
	r.checkVirtualHosts(cfg)
	r.checkPins(cfg)
}

// leastMemory is the least cache.memory.
const leastMemory = 1 << 20

func (r *report) checkCache(c Cache) {
	if c.Dir == "" {
		r.add("cache.dir", "is empty, and this user has no cache folder", "write the folder for the cache")
	}
	if c.MaxSize == (Size{}) {
		r.add("cache.max_size", "is 0", "write a size such as 50GiB or 80%")
	}
	switch {
	case c.Memory.Percent != 0:
		r.add("cache.memory", "is a percentage", "write a size such as 256MiB")
	case c.Memory.Bytes < leastMemory:
		r.add("cache.memory", "is less than 1MiB", "write a size such as 256MiB")
	}
	if c.ScrubRate.Percent != 0 {
		r.add("cache.scrub_rate", "is a percentage", "write how many bytes to read per second, such as 10MiB")
	}
}

func (r *report) checkDuration(key string, d time.Duration) {
	if d < 0 {
		r.add(key, quoted(durationText(d))+" is negative", "did you mean "+durationText(-d)+"?")
	}
}

// checkClientTime checks a duration in which a client has to do something.
func (r *report) checkClientTime(key string, d time.Duration, what string) {
	r.checkDuration(key, d)
	if d >= 0 && d < time.Second {
		r.add(key, "is "+durationText(d)+": no client could keep up with it", "write "+what)
	}
}

func (r *report) checkChoice(key, value string, known ...string) {
	if slices.Contains(known, value) {
		return
	}
	fix := "write " + strings.Join(known[:len(known)-1], ", ") + " or " + known[len(known)-1]
	if near := Nearest(value, known); near != "" {
		fix = "did you mean " + near + "?"
	}
	r.add(key, "unknown value "+quoted(value), fix)
}

func (r *report) checkCertificate(t TLS) {
	switch {
	case t.CertFile == "" && t.KeyFile == "":
	case t.KeyFile == "":
		r.add("tls.cert_file", "has no key", "set tls.key_file as well")
	case t.CertFile == "":
		r.add("tls.key_file", "has no certificate", "set tls.cert_file as well")
	default:
		certificate, err := readAtMost(t.CertFile, maxFile)
		if err != nil {
			r.add("tls.cert_file", quoted(t.CertFile)+" "+readError(err), "")
		}
		key, keyErr := readAtMost(t.KeyFile, maxFile)
		if keyErr != nil {
			r.add("tls.key_file", quoted(t.KeyFile)+" "+readError(keyErr), "")
		}
		if err != nil || keyErr != nil {
			return
		}
		if _, err := tls.X509KeyPair(certificate, key); err != nil {
			problem := "does not match tls.key_file: " + strings.TrimPrefix(err.Error(), "tls: ")
			r.add("tls.cert_file", problem, "both must be PEM, and the first certificate must belong to the key")
		}
	}
}

func (r *report) checkAddress(key, address, example string) {
	host, port, err := net.SplitHostPort(address)
	switch {
	case address == "":
		r.add(key, "is empty", "write an address such as "+example)
	case err != nil:
		fix := "write an address such as " + example
		if _, err := netip.ParseAddr(address); err == nil || hostName.MatchString(strings.ToLower(address)) && !isPort(address) {
			_, examplePort, _ := net.SplitHostPort(example)
			fix = "did you mean " + net.JoinHostPort(address, examplePort) + "?"
		} else if isPort(address) {
			fix = "did you mean 127.0.0.1:" + address + "?"
		}
		r.add(key, quoted(address)+" is not host:port", fix)
	case !isPort(port):
		r.add(key, quoted(port)+" is not a port", "write a number from 0 (any free port) to 65535")
	case host != "" && !isHost(host):
		r.add(key, quoted(host)+" is neither an IP address nor a host name", "write an address such as "+example)
	}
}

var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`)

func isHost(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil || hostName.MatchString(strings.ToLower(host))
}

func isPort(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}

// sameSocket reports whether two host:port addresses would use the same socket.
func sameSocket(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	return hostA == hostB || isUnspecified(hostA) || isUnspecified(hostB) || isLoopback(hostA) && isLoopback(hostB)
}

func isUnspecified(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip == netip.AddrFrom4([4]byte{127, 0, 0, 1})
}
