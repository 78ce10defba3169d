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
		m.fail("%s was served for %s, which never had it", d, repo)
	case err == nil, m.up.mood() == down, m.up.mood() == flaky, !held:
	case m.up.mood() == slow && errors.Is(err, upstream.ErrTimeout): // several slow answers in a row are more than a client waits for
	case m.up.blobs.hasLied(d): // it fails loudly, once
	case errors.Is(err, upstream.ErrNotFound) && time.Since(since) < modelNegativeTTL+time.Minute:
		// A "not found" may be remembered from before.
	default:
		m.fail("%s of %s: %v", d, repo, err)
	}
}

// judgeManifest compares the answer about a reference with what the upstream
// had, and with earlier answers.
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
			m.fail("%s never pointed at %s", ref, got.Descriptor.Digest)
			return
		case era < m.earlier.seen[ref]:
			m.fail("%s points backwards, at %s of era %d after %d", ref, got.Descriptor.Digest, era, m.earlier.seen[ref])
		case got.Outcome == pull.Deleted:
			// A pinned image is still served, with a warning that its tag is
			// gone.
			if !slices.ContainsFunc(indexes(eras), func(i int) bool { return is(i, "", m.settings.tagTTL) }) {
				m.fail("%s is called gone, and it is there", ref)
			}
		case !got.Stale && !is(era, got.Descriptor.Digest, m.settings.tagTTL):
			m.fail("%s is out of date and not called stale", ref)
		case got.Stale && m.up.mood() == up:
			m.fail("%s is called stale, and the upstream answers", ref)
		}
		m.saw(ref, era)
	case errors.Is(err, upstream.ErrNotFound):
		gone := len(eras) == 0 || eras[0].from.Add(modelNegativeTTL).After(at)
		var stale *pull.StaleError
		if errors.As(err, &stale) && m.up.mood() != up {
			// The upstream's word of an hour at most, since when nobody was told
			// otherwise.
			told, seen := m.earlier.seen[ref]
			gone = gone || !seen
			for i := told; i < len(eras); i++ {
				gone = gone || is(i, "", time.Hour)
			}
		}
		for i := range eras {
			gone = gone || is(i, "", modelNegativeTTL)
		}
		if !gone {
			m.fail("%s is said to be gone: %v", ref, err)
		}
		if len(eras) > 0 && eras[len(eras)-1].digest == "" && m.up.mood() == up {
			m.saw(ref, len(eras)-1)
		}
	case m.up.mood() == up, m.up.mood() == slow:
		m.fail("%s: %v", ref, err)
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

// markMissing records that content need not be here, because it was removed or
// damaged on purpose.
func (m *model) markMissing(d retention.Digest) {
	m.revise(func(k *known) {
		for key, had := range k.had {
			if delete(had, d); strings.HasSuffix(key, d.String()) {
				delete(k.had, key)
			}
		}
	})
	m.before = observation{}
}

// revise changes what the model knows, also for the case of a power cut.
func (m *model) revise(change func(*known)) {
	without := func(k *known) *known {
		k = k.clone()
		change(k)
		return k
	}
	m.known = without(m.known)
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	m.disk.now, m.disk.lasting = m.known, without(m.disk.lasting)
	if m.disk.atCut != nil {
		m.disk.atCut = without(m.disk.atCut)
	}
}
