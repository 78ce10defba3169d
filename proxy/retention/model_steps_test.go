package retention_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/retention"
)

// errand is what one client or operator does in a step. do may run in parallel
// with others; judge runs when everything is idle again.
type errand struct {
	do, judge func()
}

// step is one step of the run.
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
	if m.random.IntN(12) == 0 {
		m.up.blobs.noRanges.Store(m.random.IntN(4) == 0)
	}
	if m.random.IntN(5) == 0 {
		m.memory.forget()
	}
	if m.random.IntN(6) == 0 {
		time.Sleep(choose(m.random, []time.Duration{time.Second, 20 * time.Second, 2 * time.Minute}))
		m.observe() // the mirror has been at work too
	}
	m.up.Transcript() // nobody reads it, and it grows
	cut := m.random.IntN(12) == 0
	if cut {
		m.disk.cutAfter(1+m.random.IntN(24), m.random.IntN(2) == 0)
	}
	switch n := m.random.IntN(100); {
	case n < 70:
		m.runAll(m.errands()...)
	case n < 78:
		m.purge()
	case n < 82:
		m.pin()
	case n < 85:
		m.damage()
	case n < 87:
		m.damageDraft()
	case n < 90:
		m.fill()
	case n < 93:
		m.runAll(append([]errand{m.operatorAction()}, m.errand(), m.errand(), m.errand())...)
	case n < 95 && !cut:
		m.restart()
	case n < 97 && !cut:
		m.stopInTheMiddle()
	default:
		m.pullEverything()
	}
	if cut {
		m.crash()
	}
}

// errands are what clients do in a step, together: anything, or several things
// with one blob.
func (m *model) errands() (all []errand) {
	repo, d := m.anyBlob()
	if d != "" && m.random.IntN(5) == 0 {
		for range 2 + m.random.IntN(4) {
			all = append(all, m.askRanges(repo, d))
			if m.random.IntN(3) == 0 {
				all = append(all, m.askBlob(repo, d))
			}
			if m.random.IntN(4) == 0 {
				repo = choose(m.random, m.up.repositories())
			}
		}
		return all
	}
	all = append(all, m.errand())
	for m.random.IntN(3) == 0 {
		all = append(all, m.errand())
	}
	return all
}

// stopInTheMiddle stops the process while blobs are being downloaded: what came
// of them is kept.
func (m *model) stopInTheMiddle() {
	repo, d := m.anyBlob()
	if d == "" {
		return
	}
	all := []errand{m.askRanges(repo, d), m.askRanges(repo, d)}
	if m.random.IntN(2) == 0 {
		all = append(all, m.askBlob(m.anyBlob()))
	}
	m.earlier = m.known
	var together sync.WaitGroup
	for _, e := range all {
		together.Go(e.do)
	}
	time.Sleep(time.Duration(m.random.IntN(40)) * time.Millisecond)
	m.counts.stopped++
	m.Close()
	together.Wait()
	m.restart()
}

// runAll runs errands in parallel.
func (m *model) runAll(all ...errand) {
	m.earlier = m.known
	bypassed, evicted, refused := m.bypassed.Load(), m.evicted.Load(), m.disk.refused
	var together sync.WaitGroup
	for _, e := range all {
		together.Go(e.do)
	}
	together.Wait()
	m.wait()
	if m.disk.refused > refused {
		m.counts.refused++
		if m.bypassed.Load() == bypassed {
			m.fail("the disk refused content, and nobody counted it")
		}
	}
	if m.evicted.Load() > evicted {
		m.counts.evictions++
	}
	for _, e := range all {
		e.judge()
	}
}

func (m *model) errand() errand {
	switch n := m.random.IntN(25); {
	case n >= 20:
		if repo, d := m.anyBlob(); d != "" {
			return m.askRanges(repo, d)
		}
		return m.listTags()
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

// operatorAction is what an operator does while clients pull.
func (m *model) operatorAction() errand {
	switch m.random.IntN(3) {
	case 0:
		m.note("an inventory beside the next")
		return errand{func() {
			if _, err := m.Inventory(context.Background()); err != nil {
				m.fail("inventory: %v", err)
			}
		}, func() {}}
	case 1:
		m.note("a scrub beside the next")
		return errand{func() {
			if s, err := m.Scrub(context.Background(), 0, nil); err != nil || len(s.Damaged) > 0 || s.Unreadable > 0 {
				m.fail("scrubbed: %+v, %v", s, err)
			}
		}, func() {}}
	}
	ref := m.anyTag()
	if m.up.mood() == down {
		return m.errand() // what is purged could not be had again
	}
	m.note("a purge of %s beside the next", ref)
	m.before = observation{}
	return errand{func() {
		_, err := m.Purge(context.Background(), retention.Target(ref), false)
		if err != nil && !errors.Is(err, retention.ErrNotCached) && !errors.Is(err, retention.ErrPinned) && !errors.Is(err, cache.ErrFull) {
			m.fail("purge %s: %v", ref, err)
		}
	}, func() { m.counts.purges++ }}
}

func (m *model) anyTag() retention.Reference {
	if m.random.IntN(6) == 0 {
		return choose(m.random, m.allTags())
	}
	return retention.Reference{Repository: choose(m.random, m.up.repositories()), Ref: choose(m.random, m.up.names())}
}

func (m *model) allTags() []retention.Reference {
	var all []retention.Reference
	for ref := range m.up.tags {
		all = append(all, ref)
	}
	slices.SortFunc(all, func(a, b retention.Reference) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// anyManifest is a manifest by digest, in a repository that has it or in
// another.
func (m *model) anyManifest() retention.Reference {
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
		return retention.Reference{Repository: repo, Ref: d.String()}
	}
	return m.anyTag()
}

const headOnly = -1
