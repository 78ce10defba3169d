package retention_test

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream"
)

func (m *model) judgeBlob(repo retention.Repository, d retention.Digest, err error, _ time.Time) {
	since, held := m.up.held[repo][d]
	switch {
	case err == nil && !held:
		m.wrong("%s was served for %s, which never had it", d, repo)
	case err == nil, m.up.mood() == down, m.up.mood() == flaky, !held:
	case errors.Is(err, upstream.ErrNotFound) && time.Since(since) < modelNegativeTTL+time.Minute:
		// Its absence may be remembered from before.
	default:
		m.wrong("%s of %s: %v", d, repo, err)
	}
}

// judgeManifest holds the answer about a reference against what the upstream
// had, and against what clients were told before.
func (m *model) judgeManifest(ref retention.Reference, got pull.Manifest, err error, at time.Time) {
	if retention.Digest(ref.Ref).Validate() == nil {
		m.judgeBlob(ref.Repository, retention.Digest(ref.Ref), err, at)
		return
	}
	eras := m.up.tags[ref]
	_, made := referrers.SubjectOf(ref.Ref)
	if _, truly := m.up.bodies[got.Descriptor.Digest]; err == nil && made && !truly {
		return // the mirror's own list of referrers
	}
	is := func(i int, d retention.Digest, within time.Duration) bool {
		return eras[i].digest == d && (i == len(eras)-1 || eras[i+1].from.Add(within).After(at) || eras[i+1].from.Equal(at))
	}
	switch {
	case err == nil:
		era := -1
		for i := range eras {
			if eras[i].digest == got.Descriptor.Digest {
				era = i
			}
		}
		switch {
		case era < 0:
			m.wrong("%s never pointed at %s", ref, got.Descriptor.Digest)
			return
		case era < m.earlier.seen[ref]:
			m.wrong("%s points backwards, at %s of era %d after %d", ref, got.Descriptor.Digest, era, m.earlier.seen[ref])
		case got.Outcome == pull.Deleted:
			// A pinned image goes on being served, and it is said that its tag is gone.
			if !slices.ContainsFunc(indexes(eras), func(i int) bool { return is(i, "", m.settings.tagTTL) }) {
				m.wrong("%s is called gone, and it is there", ref)
			}
		case !got.Stale && !is(era, got.Descriptor.Digest, m.settings.tagTTL):
			m.wrong("%s is out of date and not called stale", ref)
		case got.Stale && m.up.mood() == up:
			m.wrong("%s is called stale, and the upstream answers", ref)
		}
		m.saw(ref, era)
	case errors.Is(err, upstream.ErrNotFound):
		gone := len(eras) == 0 || eras[0].from.Add(modelNegativeTTL).After(at)
		var stale *pull.StaleError
		if _, seen := m.earlier.seen[ref]; errors.As(err, &stale) && m.up.mood() != up && !seen {
			gone = true // so it was before, and nobody was told otherwise
		}
		for i := range eras {
			gone = gone || is(i, "", modelNegativeTTL)
		}
		if !gone {
			m.wrong("%s is said to be gone: %v", ref, err)
		}
		if len(eras) > 0 && eras[len(eras)-1].digest == "" && m.up.mood() == up {
			m.saw(ref, len(eras)-1)
		}
	case m.up.mood() == up, m.up.mood() == slow:
		m.wrong("%s: %v", ref, err)
	}
}

func indexes[T any](all []T) []int {
	var is []int
	for i := range all {
		is = append(is, i)
	}
	return is
}

func (m *model) saw(ref retention.Reference, era int) {
	m.known = m.known.clone()
	m.known.seen[ref] = max(era, m.known.seen[ref])
}

// exempt takes content out of what has to be here: somebody took it away on
// purpose, or broke it.
func (m *model) exempt(d retention.Digest) {
	m.revise(func(k *known) {
		for key, had := range k.had {
			if delete(had, d); strings.HasSuffix(key, d.String()) {
				delete(k.had, key)
			}
		}
	})
	m.before = snapshot{}
}

// revise changes what the model knows, and what it knows if the power is cut.
func (m *model) revise(change func(*known)) {
	without := func(k *known) *known {
		k = k.clone()
		change(k)
		return k
	}
	m.known = without(m.known)
	m.power.mu.Lock()
	defer m.power.mu.Unlock()
	m.power.now, m.power.lasting = m.known, without(m.power.lasting)
	if m.power.atCut != nil {
		m.power.atCut = without(m.power.atCut)
	}
}
