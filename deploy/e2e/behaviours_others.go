package e2e

import (
	"fmt"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

// others asks for one thing of each of several repositories, and pulls then.
func others(names ...string) []ask {
	var all []ask
	for _, name := range names {
		all = append(all, ask{what: "pull", repo: name, tag: "1", brief: true})
	}
	return append(all, askPull)
}

// many are n repositories that the usual one stands beside.
func many(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("team/odd%d", i+1))
	}
	return all
}

var behavesWithOthers = []behaviour{
	{
		name:     "odd statuses of other repositories",
		sentence: "Six repositories are 402, 406, 409, 415, 423 and 451; the usual one is whole.",
		source:   "JFrog's 409, GitHub's 451, RFC 7725",
		like: func(w *world) {
			for i, status := range []int{402, 406, 409, 415, 423, 451} {
				w.Always(fmt.Sprintf("team/odd%d", i+1), fake.Status(status, "DENIED"))
			}
		},
		asks: others(many(6)...),
	},
	{
		name:     "one repository fails",
		sentence: "One repository is 500 for good, at manifests and tags; the usual one is whole.",
		source:   "distribution#3122",
		like:     func(w *world) { w.Always("team/odd1", fake.Status(500, "UNKNOWN")) },
		asks: append([]ask{{what: "pull", repo: "team/odd1", tag: "1", brief: true}, {what: "tags", repo: "team/odd1", brief: true}, {what: "head", repo: "team/odd1", tag: "2", brief: true},
			{what: "pull", repo: "team/odd1", tag: "3", brief: true}}, askPull),
	},
	{
		name:     "one repository is a page",
		sentence: "One repository is a login page with 200, another a page with 404; the usual one is whole.",
		source:   "Artifact Registry (wire W34)",
		like: func(w *world) {
			w.Always("team/odd1", fake.Page(200))
			w.Always("team/odd2", fake.Page(404))
		},
		asks: append(others("team/odd1", "team/odd2"), others("team/odd1", "team/odd2")...),
	},
	{
		name:     "bad requests about other repositories",
		sentence: "Names that it does not like are 400 and 414, six times; the usual one is whole.",
		source:   "distribution-spec 1.1, NAME_INVALID",
		like: func(w *world) {
			for _, name := range many(6) {
				w.Always(name, fake.Status(400, "NAME_INVALID"))
			}
			w.Always("team/odd7", fake.Empty(414))
		},
		asks: others(many(7)...),
	},
	{
		name:     "a private repository beside a public one",
		sentence: "One repository is 401 for everybody, whatever token they have; the usual one is public.",
		source:   "Docker Hub (wire W42)",
		options:  []fake.Option{fake.WithAuth(fake.Auth{Scheme: "token"})},
		like: func(w *world) {
			w.Always("GET token repository:team/odd1:pull", fake.Status(401, "UNAUTHORIZED"))
		},
		asks:   append(others("team/odd1"), others("team/odd1")...),
		before: "a refusal was always of its repository",
	},
	{
		name:     "gone beside whole",
		sentence: "A repository that was deleted is 410, with the registry's own words.",
		source:   "RFC 9110, 15.5.11",
		like:     func(w *world) { w.Always("team/odd1", fake.Status(410, "NAME_UNKNOWN")) },
		absence:  "410 is the registry's own word that it is gone",
		asks:     others("team/odd1"),
		before:   "410 was always like 404",
	},
	{
		name:     "absent beside whole",
		sentence: "A tag, a repository and a blob that are not there are 404 in a registry's form.",
		source:   "distribution-spec 1.1, error codes",
		asks:     append(others("team/absent"), ask{what: "pull", tag: "absent"}, ask{what: "tags", repo: "team/absent"}),
		before:   "absence in a registry's form is absence",
	},
	{
		name:     "the last tag is gone",
		sentence: "A repository that is emptied answers its tag list with 404 NAME_UNKNOWN, while its digests are there.",
		source:   "distribution#4324",
		later:    func(w *world) { w.Always("tags", fake.Status(404, "NAME_UNKNOWN")) },
		asks:     []ask{askTags, askPull},
		before:   "absence in a registry's form is absence",
	},
}
