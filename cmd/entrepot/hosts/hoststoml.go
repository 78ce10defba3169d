package hosts

import (
	"net/url"
	"slices"
	"strings"
)

// hostsTOML is a hosts.toml, which lists the hosts for one registry in order,
// and last the registry itself. containerd reads it, and so does Docker from 29
// on, with the same library. The library adds ?ns= to requests to a mirror, so
// one URL serves all registries.
//
// Versions from 2.1 on know dial_timeout, and older versions ignore unknown
// keys. With it, an unreachable machine costs a second per request instead of
// thirty. Versions from 2.2 on know "referrers", and older versions then ignore
// the whole file (W59).
type hostsTOML struct {
	runtime   string
	registry  Registry
	mirror    Mirror
	referrers bool
	// certificates and more are existing settings that would no longer count
	// once there is a file.
	certificates certificates
	more         []otherHost
	// insecure says that the registry itself may be reached by plain HTTP, or
	// without a check of its certificate, as in Docker's insecure-registries.
	insecure bool
	// dotted says that the file is for containerd before 2.0. It ignores a
	// whole file with "]" in the name of a table, as IPv6 addresses have. It
	// reads a host as dotted keys, which later versions do not.
	dotted bool
}

// otherHost is an existing mirror.
type otherHost struct {
	url          string
	capabilities []string
	insecure     bool
}

const dialTimeout = "1s"

func (h hostsTOML) capabilities() []string {
	if h.referrers {
		return []string{"pull", "resolve", "referrers"}
	}
	return []string{"pull", "resolve"}
}

// edit adds entrepot before the existing hosts. Without a file, it starts from
// what the library does by default.
func (h hostsTOML) edit(theirs []byte) (Change, error) {
	read, err := readTOML(theirs)
	if err != nil {
		return Change{}, err
	}
	server, sets := "", []setKey(nil)
	switch {
	case theirs == nil:
		server, sets = h.server()
	case h.insecure && len(tableAt(read, "host")) == 0 && read["skip_verify"] == nil:
		lines, _ := hostsTOML{registry: h.registry, insecure: true}.server()
		return Change{}, Blocked{
			Problem: h.registry.Name + " is one of Docker's insecure-registries, which no longer counts once a hosts.toml names a mirror",
			Fix:     "set the same there, and run this again", Lines: lines,
		}
	}
	hosts, added, err := h.hosts(tableAt(read, "host"))
	if err != nil {
		return Change{}, err
	}
	if hosts == "" {
		return Change{Content: theirs}, nil // the user has already pointed it here
	}
	sets = append(sets, added...)
	lines, line := linesOf(theirs), 0
	for _, e := range expressions(theirs) {
		if e.opens && line == 0 {
			line = above(lines, e.line)
		}
	}
	if line == 0 {
		line = len(lines) + 1
	}
	content := putBefore(lines, line, marked(h.runtime, server+hosts))
	if err := proveTOML(theirs, content, sets...); err != nil {
		return Change{}, Blocked{Problem: err.Error(), Fix: "write each host as a separate table, or add this before the first by hand", Lines: hosts}
	}
	return Change{Content: content, Undo: Undo{Kind: undoMarked}}, nil
}

// server returns the settings for the registry itself.
func (h hostsTOML) server() (text string, sets []setKey) {
	set := func(key string, value any, written string) {
		text += key + " = " + written + "\n"
		sets = append(sets, setKey{[]string{key}, value})
	}
	place := h.registry.Server
	insecure := place.Insecure
	if h.insecure {
		// With plain HTTP and TLS settings, the library tries HTTPS first, as
		// Docker does with insecure-registries.
		place.Scheme, insecure = "http", true
	}
	if place.Bare() {
		set("server", place.Origin(), quote(place.Origin()))
	} else { // or it adds /v2
		set("server", place.API(), quote(place.API()))
		set("override_path", true, "true")
	}
	ca := slices.Clone(h.certificates.ca)
	if place.CAFile != "" {
		ca = append(ca, place.CAFile)
	}
	if len(ca) > 0 && place.Scheme == "https" {
		set("ca", anySlice(ca), quoteAll(ca))
	}
	if len(h.certificates.client) > 0 && place.Scheme == "https" {
		var pairs []string
		var values []any
		for _, pair := range h.certificates.client {
			if pair[1] == "" { // both are in the same file
				pairs, values = append(pairs, quote(pair[0])), append(values, pair[0])
				continue
			}
			pairs, values = append(pairs, quoteAll(pair[:])), append(values, anySlice(pair[:]))
		}
		set("client", values, "["+strings.Join(pairs, ", ")+"]")
	}
	if insecure {
		set("skip_verify", true, "true")
	}
	return text + "\n", sets
}

// hosts returns entrepot's hosts and the copied ones, except those that are
// already there.
func (h hostsTOML) hosts(there map[string]any) (string, []setKey, error) {
	var b strings.Builder
	var sets []setKey
	// All in one form, because keys of the root have to come before any table.
	dotted := h.dotted && slices.ContainsFunc(h.mirror.Addresses, isIPv6)
	add := func(url string, capabilities []string, ca string, insecure bool) {
		if _, ok := there[url]; ok || slices.ContainsFunc(sets, func(s setKey) bool { return s.path[1] == url }) {
			return
		}
		values := map[string]any{}
		key := "  "
		if dotted {
			key = "host." + quote(url) + "."
		} else {
			b.WriteString("[host." + quote(url) + "]\n")
		}
		set := func(name string, value any, written string) {
			b.WriteString(key + name + " = " + written + "\n")
			values[name] = value
		}
		set("capabilities", anySlice(capabilities), quoteAll(capabilities))
		set("dial_timeout", dialTimeout, quote(dialTimeout))
		if ca != "" {
			set("ca", ca, quote(ca))
		}
		if insecure {
			set("skip_verify", true, "true")
		}
		sets = append(sets, setKey{[]string{"host", url}, values})
	}
	for _, address := range h.mirror.Addresses {
		ca := ""
		if address.Scheme == "https" {
			ca = h.mirror.CAFile
		}
		add(address.String(), h.capabilities(), ca, false)
	}
	if len(sets) == 0 {
		return "", nil, nil
	}
	for _, other := range h.more {
		add(other.url, other.capabilities, "", other.insecure)
	}
	return b.String(), sets, nil
}

func isIPv6(address *url.URL) bool { return strings.Contains(address.Hostname(), ":") }

func anySlice(texts []string) []any {
	var all []any
	for _, text := range texts {
		all = append(all, text)
	}
	return all
}
