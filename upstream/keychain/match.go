package keychain

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// hub are the names of Docker Hub. "docker login" and the kubelet write the
// second one, Podman the first, and clients ask the third.
var hub = []string{"docker.io", "index.docker.io", "registry-1.docker.io"}

// hubServer is what Docker Hub is called in Docker's configuration, and what
// helpers are asked for.
const hubServer = "https://index.docker.io/v1/"

// A place is a registry by one of its names, and what precedes a repository's
// name there.
type place struct {
	host   string
	prefix string // without slashes around it
}

// A group is a registry with all of its names.
type group []place

// groupsOf returns the endpoint's own registry, and the one that it stands for
// if that is another.
func groupsOf(o Options) []group {
	var groups []group
	var known []string
	add := func(g *group, host, prefix string) {
		host = strings.ToLower(host)
		if prefix == "" && slices.Contains(hub, host) {
			for _, name := range append([]string{host}, hub...) {
				if !slices.Contains(known, name) {
					known = append(known, name)
					*g = append(*g, place{host: name})
				}
			}
			return
		}
		if !slices.Contains(known, host) {
			known = append(known, host)
			*g = append(*g, place{host, prefix})
		}
	}
	var own, named group
	add(&own, o.Host, o.Prefix)
	for _, name := range append([]string{o.Upstream}, o.Aliases...) {
		add(&named, name, "")
	}
	for _, g := range []group{own, named} {
		if len(g) > 0 {
			groups = append(groups, g)
		}
	}
	return groups
}

// A fit says how specific an entry is for a repository.
type fit struct {
	segments int // of its path
	literals int // of its host; all of them if it has no wildcard
	place    int // which of the registry's names it has
}

// fit reports whether an entry is for a repository, and how specifically. An
// empty repository is the registry as a whole.
func (g group) fit(e entry, repo string) (best fit, fits bool) {
	for at, p := range g {
		if e.forAll || !e.hasHost(p.host) || e.path != "" && !isWithin(strings.Trim(p.prefix+"/"+repo, "/"), e.path) {
			continue
		}
		f := fit{literals: e.literals(), place: at}
		if e.path != "" {
			f.segments = 1 + strings.Count(e.path, "/")
		}
		if !fits || f.compare(best) < 0 {
			best, fits = f, true
		}
	}
	return best, fits
}

// names reports whether an entry is for the registry, or for a part of it.
func (g group) names(e entry) bool {
	return e.forAll || slices.ContainsFunc(g, func(p place) bool { return e.hasHost(p.host) })
}

// compare is negative if f is more specific than other.
func (f fit) compare(other fit) int {
	return cmp.Or(cmp.Compare(other.segments, f.segments), cmp.Compare(other.literals, f.literals), cmp.Compare(f.place, other.place))
}

// isWithin reports whether a repository is the one of a path, or below it. A
// path ends at a slash: that of another team may begin with the same letters.
func isWithin(repo, path string) bool {
	rest, ok := strings.CutPrefix(repo, path)
	return ok && (rest == "" || rest[0] == '/')
}

// hasHost reports whether an entry's host is this one, or a pattern that
// matches it as the kubelet matches it: a wildcard stands for a part of one
// label.
func (e entry) hasHost(host string) bool {
	if e.host == host {
		return true
	}
	if !e.isPattern() {
		return false
	}
	pattern, port, _ := strings.Cut(e.host, ":")
	name, ownPort, _ := strings.Cut(host, ":")
	labels, own := strings.Split(pattern, "."), strings.Split(name, ".")
	if port != ownPort || len(labels) != len(own) {
		return false
	}
	for i, label := range labels {
		if ok, err := path.Match(label, own[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

func (e entry) isPattern() bool { return strings.ContainsAny(e.host, "*?[") }

// literals are the characters of a pattern that stand for themselves. An exact
// host has more than any pattern.
func (e entry) literals() int {
	if !e.isPattern() {
		return 1 << 16
	}
	return len(e.host) - strings.Count(e.host, "*") - strings.Count(e.host, "?")
}

// find returns the entries that fit a repository, the best first: the
// endpoint's own before those of the registry that it stands for, then the most
// specific. Among equals the order of the files decides, and in a file helpers
// come first. The helper of a whole file is asked last.
func (k *Keychain) find(entries []entry, repo string) (all []entry) {
	repo = strings.TrimPrefix(strings.TrimPrefix(repo, k.opts.Prefix), "/")
	type candidate struct {
		entry
		fit
	}
	for _, g := range k.groups {
		var found []candidate
		for _, e := range entries {
			if f, fits := g.fit(e, repo); fits {
				found = append(found, candidate{e, f})
			}
		}
		slices.SortStableFunc(found, func(a, b candidate) int { return a.compare(b.fit) })
		for _, c := range found {
			all = append(all, c.asking(g[c.place].host))
		}
	}
	for _, g := range k.groups {
		for _, e := range entries {
			if e.forAll {
				all = append(all, e.asking(g[0].host))
			}
		}
	}
	return all
}
