package config

import (
	"net/netip"
	"strconv"
	"strings"
)

// checkAdminHost checks a host name as in a URL, or an IP address.
func (r *report) checkAdminHost(key, host string) {
	r.checkAnsweredHost(key, host, "use the admin API")
}

// checkClientHost does the same for the clients' listener.
func (r *report) checkClientHost(key, host string) {
	r.checkAnsweredHost(key, host, "read what the credentials can read")
}

// checkAnsweredHost checks a host under which somebody is answered. With a wrong
// one, anyone could do something.
func (r *report) checkAnsweredHost(key, host, danger string) {
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	switch {
	case host == "":
		r.add(key, "is empty", "write a name such as entrepot.example.com")
	case err == nil && ip.IsUnspecified():
		r.add(key, quoted(host)+" stands for all addresses, and is not a host that clients use", "remove it: the address that a client connects to always answers")
	case err == nil:
	case strings.Contains(host, "*"):
		r.add(key, quoted(host)+" is a pattern", "write each name: anyone who controls a matching name could "+danger)
	default:
		r.checkHostWithoutPort(key, host, "entrepot.example.com")
	}
}

// leastToken is the length in bytes of the shortest token. Nobody can guess one
// of 128 random bits.
const leastToken = 16

func (r *report) checkAdminToken(key, file string) {
	if file == "" {
		return
	}
	content, err := readAtMost(file, 64<<10)
	token := strings.TrimSpace(string(content))
	switch {
	case err != nil:
		r.add(key, quoted(file)+" "+readError(err), "")
	case token == "":
		r.add(key, quoted(file)+" is empty", "write a token into it, such as the output of: openssl rand -hex 32")
	case len(token) < leastToken:
		r.add(key, quoted(file)+" holds less than "+strconv.Itoa(leastToken)+" bytes, which can be guessed", "write a token into it, such as the output of: openssl rand -hex 32")
	case strings.ContainsAny(token, " \t\r\n"):
		r.add(key, quoted(file)+" holds more than one word", "write one token into it, such as the output of: openssl rand -hex 32")
	}
}

func (r *report) checkNetwork(key, text string) {
	const example = "write a network such as 10.0.0.0/8 or fd00::/8"
	network, err := netip.ParsePrefix(text)
	if err != nil {
		fix := example
		if ip, err := netip.ParseAddr(text); err == nil {
			fix = "did you mean " + netip.PrefixFrom(ip, ip.BitLen()).String() + "?"
		}
		r.add(key, quoted(text)+" is not a network", fix)
		return
	}
	switch {
	case network.Addr().Is4In6():
		r.add(key, quoted(text)+" is an IPv4 network in IPv6", "write it as IPv4, such as 10.0.0.0/8")
	case network != network.Masked():
		r.add(key, quoted(text)+" has bits outside of its mask", "did you mean "+network.Masked().String()+"?")
	}
}

// Networks returns ClientNetworks, which has been checked.
func (c Config) Networks() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range c.ClientNetworks {
		if network, err := netip.ParsePrefix(text); err == nil {
			all = append(all, network)
		}
	}
	return all
}

// credentialed returns the names of the upstreams that have credentials.
func (c Config) credentialed() (names []string) {
	for _, u := range c.Upstreams {
		if u.Credentials != (Credentials{}) {
			names = append(names, u.Name)
		}
	}
	return names
}

// HasCredentials reports whether any upstream has credentials.
func (c Config) HasCredentials() bool { return len(c.credentialed()) > 0 }

// Exposure says what a listener at an address, host:port, exposes to whoever
// reaches it, or returns "" if that is nothing but what anyone can read anyway:
// no upstream has credentials, or only this machine reaches it.
func (c Config) Exposure(address string) string {
	names := c.credentialed()
	if len(names) == 0 || IsLoopbackAddress(address) {
		return ""
	}
	const shown = 5
	if more := len(names) - shown; more > 0 {
		names = append(names[:shown:shown], strconv.Itoa(more)+" more")
	}
	whose := "the credentials for " + strings.Join(names, ", ")
	if len(c.ClientNetworks) > 0 {
		return "whoever reaches " + address + " from " + strings.Join(c.ClientNetworks, ", ") + " can read all that " + whose + " can read: entrepot asks clients for no password"
	}
	return "whoever reaches " + address + " can read all that " + whose + " can read: entrepot asks clients for no password; client_networks limits who is answered"
}

// IsLoopbackAddress reports whether only this machine reaches a listener at
// host:port.
func IsLoopbackAddress(address string) bool {
	host := bareHost(address)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
