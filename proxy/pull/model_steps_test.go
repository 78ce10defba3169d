package pull

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// errand is what one client, or an operator, does in a step: do may run beside
// others, judge runs when all is quiet again.
type errand struct {
	do, judge func()
}

// step is one step of the story.
func (m *model) step() {
	m.broken = ""
	time.Sleep(time.Millisecond) // no two steps are at one time
	m.began = time.Now()
	for range m.random.IntN(3) {
		m.up.change()
	}
	if m.random.IntN(8) == 0 {
		m.up.be(choose(m.random, []mood{up, up, up, down, slow, flaky}))
	}
	if m.random.IntN(5) == 0 {
		m.memory.forget()
	}
	if m.random.IntN(6) == 0 {
		time.Sleep(choose(m.random, []time.Duration{time.Second, 20 * time.Second, 2 * time.Minute}))
		m.look() // the mirror has been at work too
	}
	m.up.transcript() // nobody reads it, and it grows
	cut := m.random.IntN(12) == 0
	if cut {
		m.power.arm(1 + m.random.IntN(24))
	}
	switch n := m.random.IntN(100); {
	case n < 70:
		all := []errand{m.errand()}
		for m.random.IntN(3) == 0 {
			all = append(all, m.errand())
		}
		m.run(all...)
	case n < 78:
		m.purge()
	case n < 82:
		m.pin()
	case n < 86:
		m.damage()
	case n < 90:
		m.fill()
	case n < 93:
		m.run(append([]errand{m.sideshow()}, m.errand(), m.errand(), m.errand())...)
	case n < 96 && !cut:
		m.restart()
	default:
		m.sweep()
	}
	if cut {
		m.crash()
	}
}

// run runs errands side by side.
func (m *model) run(all ...errand) {
	m.earlier = m.known
	bypassed, evicted, refused := m.bypassed.Load(), m.evicted.Load(), m.power.refused
	var together sync.WaitGroup
	for _, e := range all {
		together.Go(e.do)
	}
	together.Wait()
	m.settle()
	if m.power.refused > refused {
		m.told.refused++
		if m.bypassed.Load() == bypassed {
			m.wrong("the disk refused content, and nobody counted it")
		}
	}
	if m.evicted.Load() > evicted {
		m.told.evictions++
	}
	for _, e := range all {
		e.judge()
	}
}

func (m *model) errand() errand {
	switch n := m.random.IntN(20); {
	case n < 9:
		return m.pull(m.anyTag(), 0)
	case n < 12:
		return m.pull(m.anyManifest(), 0)
	case n < 14:
		return m.pull(m.anyTag(), headOnly) // what a HEAD of the tag does
	case n < 17:
		return m.readBlob()
	case n < 19:
		return m.askReferrers()
	}
	return m.listTags()
}

// sideshow is what an operator does while clients pull.
func (m *model) sideshow() errand {
	switch m.random.IntN(3) {
	case 0:
		m.say("an inventory beside the next")
		return errand{func() {
			if _, err := m.Inventory(context.Background()); err != nil {
				m.wrong("inventory: %v", err)
			}
		}, func() {}}
	case 1:
		m.say("a scrub beside the next")
		return errand{func() {
			if s, err := m.Scrub(context.Background(), 0, nil); err != nil || len(s.Damaged) > 0 || s.Unreadable > 0 {
				m.wrong("scrubbed: %+v, %v", s, err)
			}
		}, func() {}}
	}
	ref := m.anyTag()
	if m.up.mood() == down {
		return m.errand() // what is purged could not be had again
	}
	m.say("a purge of %s beside the next", ref)
	m.before = picture{}
	return errand{func() {
		_, err := m.Purge(context.Background(), Target(ref), false)
		if err != nil && !errors.Is(err, ErrNotKept) && !errors.Is(err, ErrPinned) && !errors.Is(err, cache.ErrFull) {
			m.wrong("purge %s: %v", ref, err)
		}
	}, func() { m.told.purges++ }}
}

func (m *model) anyTag() Reference {
	if m.random.IntN(6) == 0 {
		return choose(m.random, m.tagsThereWere())
	}
	return Reference{choose(m.random, m.up.repositories()), choose(m.random, m.up.names())}
}

func (m *model) tagsThereWere() []Reference {
	var all []Reference
	for ref := range m.up.tags {
		all = append(all, ref)
	}
	slices.SortFunc(all, func(a, b Reference) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// anyManifest is by digest, of the repository that has it or of another.
func (m *model) anyManifest() Reference {
	repo := choose(m.random, m.up.repositories())
	from := repo
	if m.random.IntN(4) == 0 {
		from = choose(m.random, m.up.repositories())
	}
	all := m.up.manifests(from)
	if len(all) > 12 && m.random.IntN(3) > 0 {
		all = all[len(all)-12:]
	}
	if d := choose(m.random, all); d != "" {
		return Reference{repo, d.String()}
	}
	return m.anyTag()
}

const headOnly = -1

// pull is a runtime's pull: the reference, all platforms or one, the blobs.
func (m *model) pull(ref Reference, pick int) errand {
	if pick == 0 && m.random.IntN(2) == 0 {
		pick = 1 + m.random.IntN(3) // one platform
	}
	leaves := m.random.IntN(15) == 0
	m.say("pull %s, platform %d, leaves %v", ref, pick, leaves)
	must := m.mustServe(ref)
	kept := m.stillness()
	var root Manifest
	var err error
	var at time.Time
	var parts []Digest
	do := func() {
		root, err = m.Manifest(context.Background(), ref.Repository, ref.Ref)
		at = time.Now()
		if err != nil || pick == headOnly {
			return
		}
		m.proveManifest(ref.Repository, root)
		parts = m.pullParts(ref.Repository, root, pick, leaves)
	}
	return errand{do, func() {
		m.judgeManifest(ref, root, err, at)
		if err != nil && must {
			m.wrong("%s was whole, and is not served with the upstream %s: %v", ref, m.up.mood(), err)
		}
		if err == nil && root.Stale {
			m.told.stale++
		}
		if err == nil && pick != headOnly && !leaves && kept() {
			m.told.whole++
			for _, d := range parts {
				if !m.has(context.Background(), d) {
					m.wrong("%s was pulled and %s is not kept", ref, d)
				}
			}
		}
	}}
}

// stillness returns a function that says whether since then everything was to
// be had, and nothing had to go or could not be kept.
func (m *model) stillness() func() bool {
	bypassed, evicted, purges := m.bypassed.Load(), m.evicted.Load(), m.told.purges
	return func() bool {
		return (m.up.mood() == up || m.up.mood() == slow) && m.bypassed.Load() == bypassed && m.evicted.Load() == evicted && m.told.purges == purges
	}
}

// mustServe says whether a reference has to be served without an upstream.
func (m *model) mustServe(ref Reference) bool {
	if m.up.mood() != down {
		return false
	}
	d := Digest(ref.Ref)
	if d.Validate() != nil {
		rec, ok := m.ledger.tag(ref.Repository, ref.Ref)
		if !ok {
			return false
		}
		d = rec.Descriptor.Digest
	}
	return m.known.had[recordKey(ref.Repository, d.String())] != nil
}

// pullParts pulls what a manifest names, and returns what it got.
func (m *model) pullParts(repo Repository, root Manifest, pick int, leaves bool) []Digest {
	got := []Digest{root.Descriptor.Digest}
	for queue := []Manifest{root}; len(queue) > 0; queue = queue[1:] {
		from := queue[0].Descriptor
		children, blobs, _, err := referrers.Names(from.MediaType, queue[0].Bytes)
		if err != nil {
			m.wrong("%s: %v", from.Digest, err)
		}
		if pick > 0 && len(children) > 0 {
			children = children[(pick-1)%len(children):][:1]
		}
		for _, c := range children {
			child, err := m.Manifest(context.Background(), repo, c.Digest.String())
			if m.failed(repo, from.Digest, c.Digest, err) {
				continue
			}
			m.proveManifest(repo, child)
			got, queue = append(got, c.Digest), append(queue, child)
		}
		for i, b := range blobs {
			if leaves && i == len(blobs)-1 {
				continue
			}
			_, held := m.up.held[repo][b.Digest]
			err := m.prove(repo, b.Digest, 0, -1, 0)
			switch {
			case len(b.URLs) > 0 && !held:
				// Clients get such a layer elsewhere; prove has seen to it
				// that it did not come from here.
			case !m.failed(repo, from.Digest, b.Digest, err):
				got = append(got, b.Digest)
			}
		}
	}
	return got
}

// failed says whether a part of an image could not be had, and whether that may be.
func (m *model) failed(repo Repository, of, part Digest, err error) bool {
	if err == nil {
		return false
	}
	switch {
	case m.up.mood() == up, m.up.mood() == slow:
		m.wrong("%s of %s in %s: %v", part, of, repo, err)
	case m.up.mood() == down && m.known.had[recordKey(repo, of.String())][part]:
		m.wrong("%s was here, and without an upstream its part %s is not served: %v", of, part, err)
	}
	return true
}

func (m *model) proveManifest(repo Repository, got Manifest) {
	d := got.Descriptor.Digest
	if d.Algorithm().FromBytes(got.Bytes) != d || got.Descriptor.Size != int64(len(got.Bytes)) {
		m.wrong("the manifest %s of %s has other bytes", d, repo)
	}
	if _, held := m.up.held[repo][d]; !held && got.Descriptor.MediaType != indexType {
		m.wrong("%s was served for %s, which never had it", d, repo)
	}
}

// pipe takes bytes until it has enough.
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

// prove reads a part of a blob and holds it against the truth. The client may
// leave after some bytes.
func (m *model) prove(repo Repository, d Digest, off, n int64, leaves int) error {
	truth := m.up.bodies[d].body
	b, err := m.Blob(context.Background(), repo, d)
	if err != nil {
		return err
	}
	defer b.Close()
	p := &pipe{enough: leaves}
	written, err := b.WriteRange(context.Background(), p, off, n)
	if _, held := m.up.held[repo][d]; !held && len(p.got) > 0 {
		m.wrong("%d bytes of %s were served for %s, which never had it", len(p.got), d, repo)
	}
	want := truth[off:]
	if n >= 0 {
		want = want[:n]
	}
	switch {
	case written != int64(len(p.got)):
		m.wrong("%s: %d bytes came, and %d were counted", d, len(p.got), written)
	case len(p.got) > len(want):
		m.wrong("%s: %d bytes instead of %d", d, len(p.got), len(want))
	case err == nil && string(p.got) != string(want):
		m.wrong("%s, %d bytes from %d: they are wrong", d, n, off)
	case off == 0 && len(p.got) == len(truth) && string(p.got) != string(truth):
		m.wrong("%s: a client got the whole of wrong content", d)
	}
	if errors.Is(err, errLeft) {
		return nil
	}
	return err
}

// readBlob is a blob, or a part of it, asked of a repository that may not have it.
func (m *model) readBlob() errand {
	repo, from := choose(m.random, m.up.repositories()), choose(m.random, m.up.repositories())
	d := choose(m.random, sorted(m.up.held[from]))
	if recent := m.up.shelf[from]; m.random.IntN(2) == 0 && len(recent) > 0 {
		d = recent[len(recent)-1-m.random.IntN(min(6, len(recent)))].Digest
	}
	if d == "" {
		return m.listTags()
	}
	size := int64(len(m.up.bodies[d].body))
	off, n, leaves := int64(0), int64(-1), 0
	switch m.random.IntN(4) {
	case 0:
		off = m.random.Int64N(size)
		n = m.random.Int64N(size - off + 1)
	case 1:
		leaves = 1 + m.random.IntN(int(size))
	}
	m.say("blob %s of %s, %d from %d, leaves after %d", short(d.String()), repo, n, off, leaves)
	var err error
	var at time.Time
	return errand{func() {
		if err = m.prove(repo, d, off, n, leaves); err != nil {
			return
		}
		at = time.Now()
		desc, _, headErr := m.ResolveBlob(context.Background(), repo, d)
		if headErr == nil && desc.Size != size {
			m.wrong("HEAD of %s says %d bytes instead of %d", d, desc.Size, size)
		}
	}, func() { m.judgeBlob(repo, d, err, at) }}
}

func (m *model) judgeBlob(repo Repository, d Digest, err error, _ time.Time) {
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
func (m *model) judgeManifest(ref Reference, got Manifest, err error, at time.Time) {
	if Digest(ref.Ref).Validate() == nil {
		m.judgeBlob(ref.Repository, Digest(ref.Ref), err, at)
		return
	}
	eras := m.up.tags[ref]
	_, made := referrers.SubjectOf(ref.Ref)
	if _, truly := m.up.bodies[got.Descriptor.Digest]; err == nil && made && !truly {
		return // the mirror's own list of referrers
	}
	is := func(i int, d Digest, within time.Duration) bool {
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
		case !got.Stale && !is(era, got.Descriptor.Digest, m.settings.tagTTL):
			m.wrong("%s is out of date and not called stale", ref)
		case got.Stale && m.up.mood() == up:
			m.wrong("%s is called stale, and the upstream answers", ref)
		}
		m.saw(ref, era)
	case errors.Is(err, upstream.ErrNotFound):
		gone := len(eras) == 0 || eras[0].from.Add(modelNegativeTTL).After(at)
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

func (m *model) saw(ref Reference, era int) {
	m.known = m.known.clone()
	m.known.seen[ref] = max(era, m.known.seen[ref])
}

func (m *model) askReferrers() errand {
	repo := choose(m.random, m.up.repositories())
	subject := m.up.tagged(repo).Digest
	if subject == "" {
		return m.listTags()
	}
	m.say("referrers of %s in %s", short(subject.String()), repo)
	var got Referrers
	var err error
	return errand{func() { got, err = m.Referrers(context.Background(), repo, subject) }, func() {
		var listed, truth []Digest
		for _, d := range got.Manifests {
			listed = append(listed, d.Digest)
		}
		for _, d := range m.up.referring(repo, subject) {
			truth = append(truth, d.Digest)
		}
		slices.Sort(listed)
		slices.Sort(truth)
		for _, d := range listed {
			if !slices.Contains(truth, d) {
				m.wrong("%s does not refer to %s", d, subject)
			}
		}
		list := Reference{repo, referrers.TagOf(subject)}
		e, _ := m.up.now(list)
		settled := m.up.api || time.Since(e.from) > max(m.settings.tagTTL, modelNegativeTTL)+time.Minute
		switch {
		case err == nil && !got.Stale && settled && !slices.Equal(listed, truth):
			m.wrong("the referrers of %s are %v, and %v are served as all of them", subject, truth, listed)
		case err != nil && m.up.mood() == up:
			m.wrong("referrers of %s: %v", subject, err)
		}
	}}
}

func (m *model) listTags() errand {
	repo := choose(m.random, m.up.repositories())
	m.say("tags of %s", repo)
	var got Tags
	var err error
	return errand{func() { got, err = m.Tags(context.Background(), repo, nil) }, func() {
		truth := []string{}
		for _, ref := range m.tagsThereWere() {
			if e, _ := m.up.now(ref); ref.Repository == repo && e.digest != "" {
				truth = append(truth, ref.Ref)
			}
		}
		slices.Sort(truth)
		switch {
		case err == nil && !got.Stale && !slices.Equal(got.Tags, truth):
			m.wrong("the tags of %s are %v, and %v are served", repo, truth, got.Tags)
		case err == nil && got.Stale && !slices.ContainsFunc(m.lists[repo][m.earlier.lists[repo]:], func(told []string) bool { return slices.Equal(told, got.Tags) }):
			m.wrong("the tags of %s were %v when they were told last, and %v are served", repo, m.lists[repo], got.Tags)
		case err == nil && !got.Stale:
			m.known = m.known.clone()
			m.lists[repo] = append(m.lists[repo], truth)
			m.known.lists[repo] = len(m.lists[repo]) - 1
		case err != nil && m.up.mood() == up:
			m.wrong("tags of %s: %v", repo, err)
		}
	}}
}

// exempt takes content out of what has to be here: somebody took it away on
// purpose, or broke it.
func (m *model) exempt(d Digest) {
	m.revise(func(k *known) {
		for key, had := range k.had {
			if delete(had, d); strings.HasSuffix(key, d.String()) {
				delete(k.had, key)
			}
		}
	})
	m.before = picture{}
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

// purge takes something away, and sees to it that it is gone.
func (m *model) purge() {
	target := Target(m.anyTag())
	switch m.random.IntN(5) {
	case 0:
		target = Target(m.anyManifest())
	case 1:
		target.Ref = ""
	case 2:
		target = Target{Ref: choose(m.random, m.onDisk()).String()}
	}
	if target == (Target{}) {
		return
	}
	m.say("purge %s", Reference(target))
	m.told.purges++
	if Digest(target.Ref).Validate() == nil {
		m.exempt(Digest(target.Ref))
	}
	m.before = picture{}
	dry, dryErr := m.Purge(context.Background(), target, true)
	done, err := m.Purge(context.Background(), target, false)
	if m.power.full {
		return // what can't be written down is tried again
	}
	if fmt.Sprint(dry, dryErr) != fmt.Sprint(done, err) {
		m.wrong("a dry run says %+v, %v, and the purge says %+v, %v", dry, dryErr, done, err)
	}
	switch {
	case errors.Is(err, ErrPinned) && len(m.power.put[bucketPin]) > 0, errors.Is(err, ErrNotKept):
		return
	case err != nil:
		m.wrong("purge %s: %v", Reference(target), err)
		return
	}
	was := m.up.mood()
	m.up.be(down)
	for _, repo := range m.up.repositories() {
		if target.Repository != (Repository{}) && target.Repository != repo {
			continue
		}
		refs := []string{target.Ref}
		if target.Ref == "" {
			refs = m.up.names()
			for _, d := range m.up.manifests(repo) {
				refs = append(refs, d.String())
			}
		}
		for _, ref := range refs {
			if got, err := m.Manifest(context.Background(), repo, ref); err == nil && !isMade(ref, got) {
				m.wrong("%s is purged, and served", Reference{repo, ref})
			}
			if d := Digest(ref); d.Validate() == nil && m.prove(repo, d, 0, -1, 0) == nil {
				m.wrong("%s is purged, and served as a blob", Reference{repo, ref})
			}
		}
	}
	m.settle()
	m.up.be(was)
}

// isMade says whether a manifest is the mirror's own list of referrers, which
// it makes anew from what it knows.
func isMade(ref string, got Manifest) bool {
	_, ok := referrers.SubjectOf(ref)
	return ok && got.Descriptor.MediaType == indexType
}

func (m *model) onDisk() []Digest {
	m.power.mu.Lock()
	defer m.power.mu.Unlock()
	return sorted(m.power.sizes)
}

func (m *model) pin() {
	pins, err := m.Pins()
	if err != nil {
		m.wrong("pins: %v", err)
	}
	if len(pins) > 1 || len(pins) == 1 && m.random.IntN(2) == 0 {
		r := choose(m.random, pins)
		m.say("unpin %s", r)
		m.revise(func(k *known) { delete(k.pins, r) })
		if was, err := m.Unpin(context.Background(), r); !was && err == nil {
			m.wrong("%s was not pinned, and is among the pins", r)
		}
		return
	}
	r := m.anyTag()
	if m.random.IntN(3) == 0 {
		r = m.anyManifest()
	}
	m.say("pin %s", r)
	evicted := m.evicted.Load()
	_, err = m.Pin(context.Background(), r)
	m.settle()
	switch {
	case err == nil && m.up.mood() == up && !m.whole(context.Background(), r):
		m.wrong("%s is pinned and not whole: there is no %v, after %s", r, m.missing(r), strings.Join(m.power.trace, ", "))
	case err == nil:
	case errors.Is(err, ErrNotWhole) && m.evicted.Load() > evicted: // it went again as it came
	case m.up.mood() == up && !m.power.full && !errors.Is(err, cache.ErrFull) && !errors.Is(err, upstream.ErrNotFound):
		m.wrong("pin %s: %v", r, err)
	}
}

// missing is what an image lacks.
func (m *model) missing(r Reference) (all []Digest) {
	for d := range m.everythingOf(r) {
		if !m.has(context.Background(), d) {
			all = append(all, d)
		}
	}
	return all
}

// everythingOf is what an image consists of, by what is on record of it.
func (m *model) everythingOf(r Reference) map[Digest]bool {
	d := Digest(r.Ref)
	if d.Validate() != nil {
		rec, _ := m.ledger.tag(r.Repository, r.Ref)
		d = rec.Descriptor.Digest
	}
	parts := map[Digest]bool{d: true}
	for queue := []Digest{d}; len(queue) > 0; queue = queue[1:] {
		children, blobs, _, err := referrers.Names(m.up.bodies[queue[0]].mediaType, m.up.bodies[queue[0]].body)
		if err != nil {
			m.wrong("%s: %v", queue[0], err)
		}
		for _, c := range children {
			parts[c.Digest] = true
			queue = append(queue, c.Digest)
		}
		for _, b := range blobs {
			if len(b.URLs) == 0 {
				parts[b.Digest] = true
			}
		}
	}
	return parts
}

// damage breaks a file, and lets it be noticed.
func (m *model) damage() {
	d := choose(m.random, m.onDisk())
	if d == "" {
		return
	}
	path := filepath.Join(m.power.dir, "blobs", "sha256", d.Encoded()[:2], d.Encoded())
	content, err := os.ReadFile(path)
	if err != nil {
		m.wrong("%v", err)
		return
	}
	m.told.damages++
	m.broken = d
	m.exempt(d)
	m.revise(func(k *known) {
		maps.DeleteFunc(k.pins, func(_ Reference, parts map[Digest]bool) bool { return parts[d] })
	})
	cutShort := m.random.IntN(2) == 0
	m.say("damage %s, cut short %v", short(d.String()), cutShort)
	if cutShort {
		err = os.Truncate(path, int64(m.random.IntN(len(content))))
	} else {
		content[m.random.IntN(len(content))] ^= 1
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		m.wrong("%v", err)
	}
	if !cutShort || m.random.IntN(2) == 0 {
		s, err := m.Scrub(context.Background(), 0, nil)
		if err != nil || len(s.Damaged) != 1 || s.Damaged[0] != d || s.Unreadable > 0 {
			m.wrong("scrubbed: %+v, %v", s, err)
		}
	} else {
		m.memory.Delete(d) // or nobody would look at the file
		m.run(m.pull(m.anyTag(), 0))
		m.has(context.Background(), d) // notices it
		// What others take out of the folder is counted at the next look.
		if _, err := m.Inventory(context.Background()); err != nil {
			m.wrong("inventory: %v", err)
		}
	}
	m.memory.Delete(d)
	if !m.has(context.Background(), d) {
		m.power.lost(d)
	}
	if now, err := os.ReadFile(path); err == nil && digest.FromBytes(now) != d { // it may have been fetched again
		m.wrong("%s is damaged and still served", d)
	}
	m.before = picture{}
}

// fill lets the disk be full, or have room again. Records are tried again by
// themselves.
func (m *model) fill() {
	m.power.mu.Lock()
	m.power.full = !m.power.full
	full := m.power.full
	m.power.mu.Unlock()
	m.say("the disk is full: %v", full)
	if !full {
		if err := m.opts.Records.Flush(context.Background()); err != nil {
			m.wrong("flush: %v", err)
		}
	}
}
