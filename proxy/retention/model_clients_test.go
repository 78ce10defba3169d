package retention_test

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/retention"
)

// pull is the pull of a runtime: the reference, one or all platforms, and the
// blobs.
func (m *model) pull(ref retention.Reference, pick int) errand {
	if pick == 0 && m.random.IntN(2) == 0 {
		pick = 1 + m.random.IntN(3) // one platform
	}
	leaves := m.random.IntN(15) == 0
	m.note("pull %s, platform %d, leaves %v", ref, pick, leaves)
	must := m.mustServe(ref)
	kept := m.unchanged()
	var root pull.Manifest
	var err error
	var at time.Time
	var parts []retention.Digest
	do := func() {
		root, err = m.Manifest(context.Background(), ref.Repository, ref.Ref)
		at = time.Now()
		if err != nil || pick == headOnly {
			return
		}
		m.verifyManifest(ref.Repository, root)
		parts = m.pullParts(ref.Repository, root, pick, leaves)
	}
	return errand{do, func() {
		m.judgeManifest(ref, root, err, at)
		if err != nil && must {
			m.fail("%s was whole, and is not served with the upstream %s: %v", ref, m.up.mood(), err)
		}
		if err == nil && root.Stale {
			m.counts.stale++
		}
		if err == nil && pick != headOnly && !leaves && kept() {
			m.counts.whole++
			for _, d := range parts {
				if !m.Store.Has(context.Background(), d) {
					m.fail("%s was pulled and %s is not cached", ref, d)
				}
			}
		}
	}}
}

// unchanged returns a function that says whether, since then, everything was
// available, nothing was evicted and everything could be cached.
func (m *model) unchanged() func() bool {
	bypassed, evicted, purges := m.bypassed.Load(), m.evicted.Load(), m.counts.purges
	return func() bool {
		return (m.up.mood() == up || m.up.mood() == slow) && m.bypassed.Load() == bypassed && m.evicted.Load() == evicted && m.counts.purges == purges
	}
}

// mustServe says whether a reference has to be served without an upstream.
func (m *model) mustServe(ref retention.Reference) bool {
	if m.up.mood() != down {
		return false
	}
	d := retention.Digest(ref.Ref)
	if d.Validate() != nil {
		rec, ok := m.Ledger.Tag(ref.Repository, ref.Ref)
		if !ok {
			return false
		}
		d = rec.Descriptor.Digest
	}
	return m.known.had[metadata.Key(ref.Repository, d.String())] != nil
}

// pullParts pulls what a manifest references, and returns what it got.
func (m *model) pullParts(repo retention.Repository, root pull.Manifest, pick int, leaves bool) []retention.Digest {
	got := []retention.Digest{root.Descriptor.Digest}
	for queue := []pull.Manifest{root}; len(queue) > 0; queue = queue[1:] {
		from := queue[0].Descriptor
		children, blobs, _, err := referrers.Names(from.MediaType, referrers.Parse(queue[0].Bytes))
		if err != nil {
			m.fail("%s: %v", from.Digest, err)
		}
		if pick > 0 && len(children) > 0 {
			children = children[(pick-1)%len(children):][:1]
		}
		for _, c := range children {
			child, err := m.Manifest(context.Background(), repo, c.Digest.String())
			if m.failed(repo, from.Digest, c.Digest, err) {
				continue
			}
			m.verifyManifest(repo, child)
			got, queue = append(got, c.Digest), append(queue, child)
		}
		for i, b := range blobs {
			if leaves && i == len(blobs)-1 {
				continue
			}
			_, held := m.up.held[repo][b.Digest]
			err := m.verify(repo, b.Digest, 0, -1, 0)
			switch {
			case len(b.URLs) > 0 && !held:
				// Clients get such a layer from elsewhere; verify has checked
				// that it did not come from here.
			case !m.failed(repo, from.Digest, b.Digest, err):
				got = append(got, b.Digest)
			}
		}
	}
	return got
}

// failed says whether a part of an image was not available, and checks that
// this is allowed.
func (m *model) failed(repo retention.Repository, of, part retention.Digest, err error) bool {
	if err == nil {
		return false
	}
	switch {
	case m.up.blobs.hasLied(part): // it fails loudly, once
	case m.up.mood() == up, m.up.mood() == slow:
		m.fail("%s of %s in %s: %v", part, of, repo, err)
	case m.up.mood() == down && m.known.had[metadata.Key(repo, of.String())][part]:
		m.fail("%s was here, and without an upstream its part %s is not served: %v", of, part, err)
	}
	return true
}

func (m *model) verifyManifest(repo retention.Repository, got pull.Manifest) {
	d := got.Descriptor.Digest
	if d.Algorithm().FromBytes(got.Bytes) != d || got.Descriptor.Size != int64(len(got.Bytes)) {
		m.fail("the manifest %s of %s has other bytes", d, repo)
	}
	if _, held := m.up.held[repo][d]; !held && got.Descriptor.MediaType != mirrortest.IndexType {
		m.fail("%s was served for %s, which never had it", d, repo)
	}
}

// pipe accepts bytes until it has enough.
type pipe struct {
	got    []byte
	enough int // 0 means never
}

var errLeft = errors.New("the client has left")

func (p *pipe) Write(b []byte) (int, error) {
	p.got = append(p.got, b...)
	if p.enough > 0 && len(p.got) >= p.enough {
		return len(b), errLeft
	}
	return len(b), nil
}

// verify reads a part of a blob and compares it with the truth. The client may
// leave after some bytes.
func (m *model) verify(repo retention.Repository, d retention.Digest, off, n int64, leaves int) error {
	truth := m.up.bodies[d].Body
	b, err := m.Blob(context.Background(), repo, d, pull.Want{})
	if err != nil {
		return err
	}
	defer b.Close()
	p := &pipe{enough: leaves}
	written, err := b.WriteRange(context.Background(), p, off, n)
	if _, held := m.up.held[repo][d]; !held && len(p.got) > 0 {
		m.fail("%d bytes of %s were served for %s, which never had it", len(p.got), d, repo)
	}
	want := truth[off:]
	if n >= 0 {
		want = want[:n]
	}
	all := cache.Span{To: int64(len(truth))}
	switch read := (cache.Span{From: off, To: off + int64(len(p.got))}); {
	case written != int64(len(p.got)):
		m.fail("%s: %d bytes came, and %d were counted", d, len(p.got), written)
	case len(p.got) > len(want):
		m.fail("%s: %d bytes instead of %d", d, len(p.got), len(want))
	case err == nil && len(p.got) < len(want):
		m.fail("%s: %d bytes of %d, and no error", d, len(p.got), len(want))
	case m.up.blobs.wrong(d, truth, p.got, off) >= 0:
		m.fail("%s, %d bytes from %d: the byte at %d is wrong", d, n, off, m.up.blobs.wrong(d, truth, p.got, off))
	case read == all && string(p.got) != string(truth):
		m.fail("%s: a client got the whole of wrong content", d)
	default:
		m.hasRead(d, cache.Spans{read})
	}
	if errors.Is(err, errLeft) {
		return nil
	}
	return err
}

// readBlob requests any blob from a repository that may not have it.
func (m *model) readBlob() errand {
	repo, d := m.anyBlob()
	if d == "" {
		return m.listTags()
	}
	return m.askBlob(repo, d)
}

// askBlob requests a blob, and reads all of it or a part.
func (m *model) askBlob(repo retention.Repository, d retention.Digest) errand {
	size := int64(len(m.up.bodies[d].Body))
	off, n, leaves := int64(0), int64(-1), 0
	switch m.random.IntN(4) {
	case 0:
		off = m.random.Int64N(size)
		n = m.random.Int64N(size - off + 1)
	case 1:
		leaves = 1 + m.random.IntN(int(size))
	}
	m.note("blob %s of %s, %d from %d, leaves after %d", mirrortest.Short(d.String()), repo, n, off, leaves)
	var err error
	var at time.Time
	return errand{func() {
		if err = m.verify(repo, d, off, n, leaves); err != nil {
			return
		}
		at = time.Now()
		desc, _, headErr := m.ResolveBlob(context.Background(), repo, d)
		if headErr == nil && desc.Size != size {
			m.fail("HEAD of %s says %d bytes instead of %d", d, desc.Size, size)
		}
	}, func() { m.judgeBlob(repo, d, err, at) }}
}

func (m *model) askReferrers() errand {
	repo := choose(m.random, m.up.repositories())
	subject := m.up.taggedManifest(repo).Digest
	if subject == "" {
		return m.listTags()
	}
	m.note("referrers of %s in %s", mirrortest.Short(subject.String()), repo)
	var got pull.Referrers
	var err error
	return errand{func() { got, err = m.Referrers(context.Background(), repo, subject) }, func() {
		var listed, truth []retention.Digest
		for _, d := range got.Manifests {
			listed = append(listed, d.Digest)
		}
		for _, d := range m.up.referrersOf(repo, subject) {
			truth = append(truth, d.Digest)
		}
		slices.Sort(listed)
		slices.Sort(truth)
		for _, d := range listed {
			if !slices.Contains(truth, d) {
				m.fail("%s does not refer to %s", d, subject)
			}
		}
		list := retention.Reference{Repository: repo, Ref: referrers.TagOf(subject)}
		e, _ := m.up.now(list)
		settled := m.up.API || time.Since(e.from) > max(m.settings.tagTTL, modelNegativeTTL)+time.Minute
		switch {
		case err == nil && !got.Stale && settled && !slices.Equal(listed, truth):
			m.fail("the referrers of %s are %v, and %v are served as all of them", subject, truth, listed)
		case err != nil && m.up.mood() == up:
			m.fail("referrers of %s: %v", subject, err)
		}
	}}
}

func (m *model) listTags() errand {
	repo := choose(m.random, m.up.repositories())
	m.note("tags of %s", repo)
	var got pull.Tags
	var err error
	began := time.Now()
	return errand{func() { got, err = m.Tags(context.Background(), repo, nil) }, func() {
		truth := []string{}
		for _, ref := range m.allTags() {
			if e, _ := m.up.now(ref); ref.Repository == repo && e.digest != "" {
				truth = append(truth, ref.Ref)
			}
		}
		slices.Sort(truth)
		switch {
		case err == nil && !got.Stale && !slices.Equal(got.Tags, truth):
			m.fail("the tags of %s are %v, and %v are served", repo, truth, got.Tags)
		case err == nil && got.Stale && !slices.ContainsFunc(m.lists[repo][m.earlier.lists[repo]:], func(told []string) bool { return slices.Equal(told, got.Tags) }) && !m.wereTags(repo, got.Tags):
			m.fail("the tags of %s were %v when they were told last, and %v are served", repo, m.lists[repo], got.Tags)
		case err == nil && !got.Stale:
			m.known = m.known.clone()
			m.lists[repo] = append(m.lists[repo], truth)
			m.known.lists[repo] = len(m.lists[repo]) - 1
			m.known.listed[repo] = began
		case err != nil && m.up.mood() == up:
			m.fail("tags of %s: %v", repo, err)
		}
	}}
}

// isGenerated says whether a manifest is a list of referrers that the mirror
// itself has built.
func isGenerated(ref string, got pull.Manifest) bool {
	_, ok := referrers.SubjectOf(ref)
	return ok && got.Descriptor.MediaType == mirrortest.IndexType
}

// wereTags says whether these were the tags of a repository at some time since a
// client was told of them. A list that came too late for a client is kept, and
// no client was told of that.
func (m *model) wereTags(repo retention.Repository, tags []string) bool {
	for _, one := range m.allTags() {
		for _, changed := range m.up.tags[one] {
			if changed.from.Before(m.earlier.listed[repo]) {
				continue
			}
			var then []string
			for _, ref := range m.allTags() {
				if ref.Repository != repo {
					continue
				}
				now := ""
				for _, e := range m.up.tags[ref] {
					if !e.from.After(changed.from) {
						now = e.digest.String()
					}
				}
				if now != "" {
					then = append(then, ref.Ref)
				}
			}
			if slices.Sort(then); slices.Equal(then, tags) {
				return true
			}
		}
	}
	return false
}
