package retention

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
)

// KnownReferrers is a recorded answer about the referrers of a manifest that is
// not itself in the cache: somebody asked for them and did not pull it.
type KnownReferrers struct {
	Upstream   string    `json:"upstream"`
	Repository string    `json:"repository"`
	Subject    Digest    `json:"subject"`
	Referrers  int       `json:"referrers"` // how many there are
	KnownAt    time.Time `json:"knownAt"`   // when the upstream said so
}

// reference names the subject by its digest.
func (k KnownReferrers) reference() Reference {
	return Reference{Repository: Repository{Upstream: k.Upstream, Name: k.Repository}, Ref: k.Subject.String()}
}

// listSubjects describes the recorded answers about manifests that are not in
// the cache, sorted by name. Those about others belong to their images.
func (s *snapshot) listSubjects(repo Repository) ([]KnownReferrers, error) {
	return listSubjects(s.ledger, repo, func(repo Repository, d Digest) bool { return s.nodes[metadata.Key(repo, d.String())] != nil })
}

func listSubjects(of *metadata.Ledger, repo Repository, isCached func(Repository, Digest) bool) ([]KnownReferrers, error) {
	all := []KnownReferrers{}
	err := of.EachReferrers(repo, func(repo Repository, subject Digest, r metadata.Referrers) {
		if !isCached(repo, subject) {
			all = append(all, KnownReferrers{
				Upstream: repo.Upstream, Repository: repo.Name, Subject: subject, Referrers: len(r.Manifests), KnownAt: r.At.UTC(),
			})
		}
	})
	slices.SortFunc(all, func(a, b KnownReferrers) int {
		return cmp.Or(strings.Compare(a.Upstream, b.Upstream), strings.Compare(a.Repository, b.Repository), cmp.Compare(a.Subject, b.Subject))
	})
	return all, err
}

// addSubjects adds the recorded answers that the target names, by the digest of
// their subject or with its repository. The one about a manifest that is removed
// goes with it.
func (p *purge) addSubjects() error {
	if p.isTag() {
		return nil
	}
	all, err := p.listSubjects(p.target.Repository)
	for _, k := range all {
		if p.target.isRepository() || k.Subject == p.digest {
			p.subjects = append(p.subjects, k)
		}
	}
	return err
}
