package pull_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// memoryOf is a memory with room for everything, until it drops it.
type memoryOf struct {
	mu   sync.Mutex
	kept map[pull.Digest][]byte
}

func (m *memoryOf) Get(d pull.Digest) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	content, ok := m.kept[d]
	return content, ok
}

func (m *memoryOf) Put(d pull.Digest, content []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept[d] = content
}

func (m *memoryOf) Delete(d pull.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.kept, d)
}

func (m *memoryOf) drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.kept)
}

// readRecords counts how often a list is read from the records.
type readRecords struct {
	cache.Records
	mu    sync.Mutex
	lists int
	gate  *sync.WaitGroup // if not nil, a read of a list waits for it
}

func (r *readRecords) hold(gate *sync.WaitGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate = gate
}

func (r *readRecords) Get(b cache.Bucket, key string) ([]byte, error) {
	if b == "referrers" {
		r.mu.Lock()
		r.lists++
		gate := r.gate
		r.mu.Unlock()
		if gate != nil {
			gate.Wait()
		}
	}
	return r.Records.Get(b, key)
}

// taken is how often one was read since the last call.
func (r *readRecords) taken() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.lists
	r.lists = 0
	return n
}

// 13.2, 13.7: a hit of a long list costs what is sent, by the API and by the tag:
// no record is read for it, and nothing decoded. What memory holds of it is
// counted like any other content, and may go.
func TestALongListIsKeptAsItIsSent(t *testing.T) {
	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprint("API ", api), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const many = 400 // no more than are opened at once
				o := mirrortest.NewOrigin()
				o.API = api
				subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
				attached := make([]pull.Descriptor, 0, many+1)
				for i := range many {
					attached = append(attached, o.Attach(subject, fmt.Sprint("type", i)))
				}
				list := func() {
					if !api {
						o.List(subject.Digest, attached...)
					}
				}
				list()
				memory, records := &memoryOf{kept: map[pull.Digest][]byte{}}, &readRecords{}
				m := mirrortest.New(t, o, func(opts *mirror.Options) {
					records.Records, opts.Memory, opts.Records = opts.Records, memory, records
				})
				tag := referrers.TagOf(subject.Digest)
				ask := func(when string, want int, outcome pull.Outcome) {
					t.Helper()
					got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
					if err != nil || got.Outcome != outcome {
						t.Fatalf("%s: %s, %v", when, got.Outcome, err)
					}
					if outcome == pull.Hit {
						if kept, ok := memory.Get(digest.FromBytes(got.List.Bytes())); !ok || &kept[0] != &got.List.Bytes()[0] {
							t.Errorf("%s: it is not what memory holds", when)
						}
						if got.Manifests, err = got.List.Descriptors(); err != nil {
							t.Fatal(err)
						}
					}
					made, err := m.Manifest(t.Context(), mirrortest.App, tag)
					if err != nil {
						t.Fatalf("%s, by the tag: %v", when, err)
					}
					index, _, err := referrers.ReadIndex(referrers.Parse(made.Bytes))
					if err != nil || len(index) != want || len(got.Manifests) != want {
						t.Errorf("%s: %d by the API, %d by the tag, want %d (%v)", when, len(got.Manifests), len(index), want, err)
					}
				}
				if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
					t.Fatal(err)
				}
				records.taken()
				for range 3 {
					ask("warm", many, pull.Hit)
				}
				if n := records.taken(); n != 0 { // it was made ready by the lookup
					t.Errorf("warm: the record is read %d times", n)
				}
				if n := testing.AllocsPerRun(3, func() { _, _ = m.Referrers(t.Context(), mirrortest.App, subject.Digest) }); n > many/10 {
					t.Errorf("a hit makes %.0f allocations: it reads what it lists", n)
				}
				// The record of what stands under the tag names it all, too.
				if n := testing.AllocsPerRun(3, func() { _, _ = m.Manifest(t.Context(), mirrortest.App, tag) }); n > 20*many {
					t.Errorf("a hit by the tag makes %.0f allocations: it is compared with what the upstream has", n)
				}
				memory.drop()
				ask("when memory has dropped it", many, pull.Hit)
				ask("and again", many, pull.Hit)
				if n := records.taken(); n != 1 {
					t.Errorf("when memory has dropped it, the record is read %d times", n)
				}
				attached = append(attached, o.Attach(subject, "another"))
				list()
				time.Sleep(m.Rules.ReferrersTTL)
				ask("another one", many+1, pull.Miss)
				ask("another one, warm", many+1, pull.Hit)
			})
		})
	}
}
