package pull

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// maxAccepted is how many classes of clients are remembered: by tag, and by
	// the media types that they accept. acceptedTTL is longer than any tag is
	// fresh.
	maxAccepted = 4 << 10
	acceptedTTL = 30 * 24 * time.Hour
)

// conversions remembers what an upstream has for clients that accept other
// media types than that of the cached manifest.
type conversions = memory.Answers[string, conversion]

// conversion is a tag's manifest for one class of clients.
type conversion struct {
	of, to  Digest // what the tag points at, and what this class gets
	absent  error  // there is nothing for this class
	checked time.Time
}

func newConversions() *conversions {
	all, err := memory.NewAnswers[string, conversion](maxAccepted)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return all
}

// ManifestFor is Manifest for a client that accepts only these media types, or
// any if there are none. Some registries convert what a tag points at (W3, F30,
// F36). So if the cached manifest has none of the types, the upstream is asked
// with them, once for each class of clients for as long as the tag is fresh. A
// digest names one content, and if the upstream cannot be asked, the cached
// manifest is better than none: its own type says what it is.
func (p *Puller) ManifestFor(ctx context.Context, repo Repository, ref string, types []string, wish ...Freshness) (Manifest, error) {
	began := time.Now()
	m, err := p.Manifest(ctx, repo, ref, wish...)
	if err != nil || len(types) == 0 || slices.Contains(types, m.Descriptor.MediaType) {
		return m, err
	}
	if _, parseErr := digest.Parse(ref); parseErr == nil || m.Outcome == Deleted || isReferrersTag(ref) {
		return m, nil
	}
	return p.convertedManifest(ctx, repo, ref, m, types, p.rules.Wait-time.Since(began), wish)
}

// convertedManifest returns what a tag is for clients that accept only these
// types, m if nothing else is known of it, or an error if there is nothing for
// them. It takes as long as is left of the client's wait.
func (p *Puller) convertedManifest(ctx context.Context, repo Repository, tag string, m Manifest, types []string, left time.Duration, wish []Freshness) (Manifest, error) {
	u, err := p.upstreamFor(repo)
	if err != nil {
		return Manifest{}, err
	}
	key := "accept\x00" + metadata.Key(repo, tag) + "\x00" + strings.Join(types, ",")
	known, _ := p.requests.conversions.Get(key)
	if known.of != m.Descriptor.Digest {
		known = conversion{of: m.Descriptor.Digest}
	}
	kept, isKept := p.keptConversion(ctx, repo, m, known)
	canAsk := !u.Offline && !m.Stale
	renew := p.requests.renewals.wanted(key, wish, known.checked)
	switch isFresh := p.isFreshConversion(u, tag, known) && renew.allows(known.checked); {
	case canAsk && isFresh && known.absent != nil:
		return Manifest{Outcome: Negative}, known.absent
	case !canAsk, (isFresh || renew.failed) && isKept:
		return kept, nil
	}
	if isKept {
		left = min(left, p.rules.MaxWait)
	}
	wait, cancel := context.WithTimeoutCause(ctx, left, errTooLong)
	defer cancel()
	converted, err := shareRequest(wait, p, p.requests.others, key, func(ctx context.Context) (Manifest, error) {
		converted, err := p.fetchConverted(ctx, u, repo, tag, m, types)
		if err == nil && !converted.Stale || errors.Is(err, upstream.ErrNotFound) {
			p.requests.conversions.Put(key, conversion{known.of, converted.Descriptor.Digest, err, time.Now()}, acceptedTTL)
		}
		p.requests.renewals.note(key, renew, !IsInconclusive(err))
		return converted, err
	})
	switch {
	case err == nil:
		p.ledger.UseManifest(repo, converted.Descriptor.Digest)
		return converted, nil
	case ctx.Err() == nil && IsInconclusive(err):
		p.log.Debug("the upstream could not be asked for other types", "repository", repo.String(), "tag", tag, "error", err)
		return kept, nil
	}
	return Manifest{}, err
}

// isFreshConversion says whether the upstream need not be asked again.
func (p *Puller) isFreshConversion(u Upstream, tag string, known conversion) bool {
	age := time.Since(known.checked)
	return !known.checked.IsZero() && (u.Immutable != nil && u.Immutable(tag) || age >= 0 && age < p.tagTTL(u))
}

// keptConversion returns what a class of clients got last. Without it, it
// returns the cached manifest itself, and false.
func (p *Puller) keptConversion(ctx context.Context, repo Repository, m Manifest, known conversion) (Manifest, bool) {
	switch known.to {
	case "":
		return m, false
	case m.Descriptor.Digest:
		return m, true
	}
	kept, ok := p.cachedManifest(ctx, repo, known.to)
	if !ok {
		return m, false
	}
	if m.Stale {
		kept = staleManifest(kept)
	}
	return kept, true
}

// fetchConverted asks the upstream what a tag is for clients that accept only
// these types. HEAD comes first, because most registries ignore them.
func (p *Puller) fetchConverted(ctx context.Context, u Upstream, repo Repository, tag string, m Manifest, types []string) (Manifest, error) {
	accepting := upstream.WithAccept(ctx, types)
	desc, err := u.Registry.Resolve(accepting, repo.Name, tag)
	switch {
	case errors.Is(err, upstream.ErrNotFound), errors.Is(err, upstream.ErrUnsupported):
		desc.Digest = "" // a HEAD alone is not believed (W44)
	case err != nil:
		return Manifest{}, err
	case desc.Digest == m.Descriptor.Digest:
		return m, nil
	case desc.Digest != "":
		converted, err := p.manifestByDigest(ctx, u, repo, desc.Digest)
		if err == nil || !isServedByTagOnly(err) {
			return converted, err
		}
	}
	return p.fetchManifest(accepting, u, repo, tag, "", desc.Digest)
}
