package pull

import (
	"strings"

	"github.com/opencontainers/go-digest"
)

// What is in memory and may be served as it is answers nearly all requests. It
// never waits: neither for a disk that is down, nor for an upstream. So it needs
// no deadline and no context. What is found here is what the longer way would
// find; all that is not so simple goes that way.

// remembered returns a manifest that is in memory: by digest, or by a tag that
// needs no check.
func (p *Puller) remembered(repo Repository, ref string, wish []Freshness) (Manifest, bool) {
	u, err := p.upstreamFor(repo)
	if err != nil {
		return Manifest{}, false
	}
	d := Digest(ref)
	if strings.IndexByte(ref, ':') < 0 {
		rec, ok := p.ledger.Tag(repo, ref)
		if !ok || mayCarryReferrers(ref) || wishesAny(wish) || !rec.GoneSince.IsZero() || !p.isFresh(u, repo, ref, rec) {
			return Manifest{}, false
		}
		d = rec.Descriptor.Digest
	}
	mediaType, ok := p.ledger.Recall(repo, d)
	if !ok {
		return Manifest{}, false
	}
	content, ok := p.store.ReadMemory(d)
	if !ok || p.store.IsUnwritten(d) {
		return Manifest{}, false
	}
	return Manifest{Descriptor: Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}, Bytes: content, Outcome: Hit}, true
}

// rememberedBlob returns a small blob that is in memory.
func (p *Puller) rememberedBlob(repo Repository, d Digest) (Blob, bool) {
	if _, err := p.upstreamFor(repo); err != nil {
		return nil, false
	}
	member, known := p.ledger.Member(repo, d)
	if !known || member.IsOld() || member.Named && p.isPrivate(d) {
		return nil, false // an old record may have to be asked about
	}
	content, ok := p.store.ReadMemory(d)
	if !ok {
		return nil, false
	}
	p.ledger.UseBlob(d)
	return memoryBlob{d, content}, true
}

// mayCarryReferrers says whether a tag may be one that carries referrers: it
// begins with the algorithm of a digest.
func mayCarryReferrers(tag string) bool {
	algorithm, _, ok := strings.Cut(tag, "-")
	return ok && digest.Algorithm(algorithm).Available()
}

func wishesAny(wish []Freshness) bool {
	for _, w := range wish {
		if w.wished {
			return true
		}
	}
	return false
}
