package upstream

import (
	"net/netip"
	"slices"
)

// notPublic are addresses at which there is no registry of the internet, beside
// those that package netip knows (IANA, "IPv4 and IPv6 Special-Purpose Address
// Registries").
var notPublic = prefixes(
	"0.0.0.0/8",          // this network
	"100.64.0.0/10",      // carrier-grade NAT (RFC 6598)
	"192.0.0.0/24",       // protocol assignments (RFC 6890)
	"198.18.0.0/15",      // benchmarks of devices (RFC 2544)
	"240.0.0.0/4",        // reserved (RFC 1112)
	"::/96", "fec0::/10", // IPv4 within IPv6, and sites; both deprecated (RFC 4291, RFC 3879)
	"2002::/16", // 6to4 (RFC 3056)
)

// metadata are the addresses at which clouds tell a machine what it is, and
// give it its credentials, as far as they are not link-local.
var metadata = prefixes(
	"fd00:ec2::254/128",  // Amazon
	"100.100.100.200/32", // Alibaba
	"168.63.129.16/32",   // Azure
	"fd20:ce::254/128",   // Google
	"192.0.0.192/32",     // Oracle
)

// translated are prefixes behind which NAT64 puts an IPv4 address, in the last
// four bytes (RFC 6052, RFC 8215).
var translated = prefixes("64:ff9b::/96", "64:ff9b:1::/48")

func prefixes(all ...string) (parsed []netip.Prefix) {
	for _, p := range all {
		parsed = append(parsed, netip.MustParsePrefix(p))
	}
	return parsed
}

func isIn(all []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(a) })
}

// reached is the address that is reached by way of another one.
func reached(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if isIn(translated, a) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

// forbidden says whether a public registry may not send anybody to an address.
func forbidden(a netip.Addr) bool {
	return a.IsLoopback() || a.IsPrivate() || a.IsUnspecified() || a.IsMulticast() ||
		a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || isIn(notPublic, a) || isIn(metadata, a)
}

// isOfMachine says whether what is at an address is meant for this machine alone,
// so that not even a registry in its network may send anybody there.
func isOfMachine(a netip.Addr) bool { return a.IsLinkLocalUnicast() || isIn(metadata, a) }
