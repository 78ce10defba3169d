package hosts

import (
	"net/url"
	"slices"
	"strings"
)

// A hosts.toml says of one registry which hosts are asked for it, in order, and
// last the registry itself. containerd reads it, and Docker from 29 on with the
// same library, which adds ?ns= to what it asks of a mirror: so one URL serves
// all registries.
//
// dial_timeout is known from 2.1 on, and older ones pass over what they don't
// know: with it a machine that is gone costs a second for each request, and not
// thirty. "referrers" is known from 2.2 on, and older ones then ignore the whole
// file (W59).
type hostsTOML struct {
	runtime   string
	registry  Registry
	mirror    Mirror
	referrers bool
	// certificates and more are what people have configured elsewhere, and what
	// would not count any more once there is a file.
	certificates certificates
	more         []otherHost
	// insecure says that the registry itself may be asked without checking its
	// certificate, and by plain HTTP, as Docker's insecure-registries have it.
	insecure bool
	// dotted says that it is for a containerd before 2.0, which ignores a whole
	// file with "]" in the name of a table, as an IPv6 address has it. It reads a
	// host as keys with dots, which later ones do not.
	dotted bool
}

// otherHost is a mirror that people have configured elsewhere.
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

// edit puts ours before the hosts that are there. Where there is no file, it is
// what the library does without one, with ours before it.
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
			Problem: h.registry.Name + " is one of Docker's insecure-registries, which counts no more once a hosts.toml names a mirror",
			Mend:    "say the same there, and run this again", Lines: lines,
		}
	}
	hosts, added, err := h.hosts(tableAt(read, "host"))
	if err != nil {
		return Change{}, err
	}
	if hosts == "" {
		return Change{Content: theirs}, nil // they point here by hand
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
		return Change{}, Blocked{Problem: err.Error(), Mend: "write each host as a table of its own, or put this before the first by hand", Lines: hosts}
	}
	return Change{Content: content, Undo: Undo{Kind: undoMarked}}, nil
}

// server is the registry itself.
func (h hostsTOML) server() (text string, sets []setKey) {
	set := func(key string, value any, written string) {
		text += key + " = " + written + "\n"
		sets = append(sets, setKey{[]string{key}, value})
	}
	place := h.registry.Server
	insecure := place.Insecure
	if h.insecure {
		// With plain HTTP and something said of TLS, the library tries HTTPS
		// first: so it does with insecure-registries.
		place.Scheme, insecure = "http", true
	}
	if place.Bare() {
		set("server", place.Origin(), quote(place.Origin()))
	} else { // or else it adds a /v2 of its own
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
			if pair[1] == "" { // both are in one file
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

// hosts are ours, and those that are carried over, but for those that are there
// already.
func (h hostsTOML) hosts(there map[string]any) (string, []setKey, error) {
	var b strings.Builder
	var sets []setKey
	// All of ours in one form, for keys of the root stand before any table.
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
