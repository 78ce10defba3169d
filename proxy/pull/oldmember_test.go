package pull_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// older makes the records of a mirror what a version before 13.9 left: nothing
// says who says that a repository has a blob, or that it may be private.
func older(m mirrortest.Mirror, d pull.Digest, repos ...pull.Repository) {
	for _, repo := range repos {
		key := metadata.Key(repo, d.String())
		m.Records.Delete("held", key)
		m.Records.Put("member", key, []byte(`{"Size":307200}`))
	}
	m.Records.Delete("private", d.String())
	m.Records.Delete("stored", "old members")
}

// Older versions believed manifests. What they have recorded costs one question
// where the upstream has credentials, and is believed where it can't be asked.
func TestAMemberThatAnOlderVersionRecordedIsAskedAboutOnce(t *testing.T) {
	secret := mirrortest.Bytes(1, 300<<10)
	for name, test := range map[string]struct {
		public bool // no credentials
		has    bool // the upstream has it there
		asked  int
	}{
		"it has it":                       {has: true, asked: 1},
		"it does not":                     {asked: 1},
		"it has none, and no credentials": {public: true, asked: 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				layer := o.Put("private", "layer", secret)
				if test.has {
					o.Put("evil", "layer", secret)
				}
				before := mirrortest.New(t, o, credentialed)
				if err := before.Read(t.Context(), private, layer.Digest); err != nil {
					t.Fatal(err)
				}
				mirrortest.Wait()
				older(before, layer.Digest, private, evil)
				start := func() mirrortest.Mirror {
					m := mirrortest.New(t, o, func(opts *mirror.Options) {
						opts.Upstreams[0].Credentialed = !test.public
						opts.Blobs, opts.Records = before.Blobs, before.Records
					})
					mirrortest.Wait()
					return m
				}
				m := start()
				line := "HEAD blob evil " + mirrortest.Short(layer.Digest.String())
				wants := func(when string, m mirrortest.Mirror, served bool) {
					t.Helper()
					got, err := m.Fetch(evil, layer.Digest)
					if isServed := err == nil && bytes.Equal(got, secret); isServed != served || !served && len(got) > 0 {
						t.Errorf("%s: %d bytes, %v", when, len(got), err)
					}
				}
				// It can't be asked, or does not answer in time.
				o.Transcript()
				o.FailAll()
				wants("while the upstream is away", m, true)
				o.ClearFailures()
				if !test.public {
					release := o.Hold(line)
					began := time.Now()
					wants("while the upstream is silent", m, true)
					if waited := time.Since(began); waited != m.Rules.MaxWait {
						t.Errorf("the client waited %s", waited)
					}
					release()
					mirrortest.Wait()
				}
				o.Transcript()
				m = start()
				for range 2 {
					wants("when it answers", m, test.has || test.public)
				}
				if _, _, err := m.ResolveBlob(t.Context(), evil, layer.Digest); (err == nil) != (test.has || test.public) {
					t.Errorf("HEAD: %v", err)
				}
				again := start()
				o.FailAll()
				wants("by the next process", again, test.has || test.public)
				// The other has to be asked about as well, and can't be.
				if got, err := again.Fetch(private, layer.Digest); err != nil || !bytes.Equal(got, secret) {
					t.Errorf("its own repository: %d bytes, %v", len(got), err)
				}
				if err := m.Ledger.Check(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Content that an older version has fetched is nobody's to name.
func TestWhatAnOlderVersionFetchedWithCredentialsIsNotGivenToWhoNamesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		layer := o.Put("private", "layer", mirrortest.Bytes(1, 300<<10))
		name(t, o, "evil", "1", layer)
		before := mirrortest.New(t, o, credentialed)
		if err := before.Read(t.Context(), private, layer.Digest); err != nil {
			t.Fatal(err)
		}
		mirrortest.Wait()
		older(before, layer.Digest, private)
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			credentialed(opts)
			opts.Blobs, opts.Records = before.Blobs, before.Records
		})
		mirrortest.Wait()
		if _, err := m.Manifest(t.Context(), evil, "1"); err != nil {
			t.Fatal(err)
		}
		if got, err := m.Fetch(evil, layer.Digest); !errors.Is(err, upstream.ErrNotFound) || len(got) > 0 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// What is in memory is asked about as well.
func TestAnOlderMembersContentInMemoryIsAskedAboutOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		secret := mirrortest.Bytes(1, 2<<10)
		layer := o.Put("private", "layer", secret)
		before := mirrortest.New(t, o, credentialed)
		if err := before.Read(t.Context(), private, layer.Digest); err != nil {
			t.Fatal(err)
		}
		mirrortest.Wait()
		older(before, layer.Digest, private, evil)
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			credentialed(opts)
			opts.Blobs, opts.Records, opts.Memory = before.Blobs, before.Records, &remembering{}
		})
		mirrortest.Wait()
		for range 2 { // from disk, and from memory
			if got, err := m.Fetch(private, layer.Digest); err != nil || !bytes.Equal(got, secret) {
				t.Fatalf("its own repository: %d bytes, %v", len(got), err)
			}
		}
		if got, err := m.Fetch(evil, layer.Digest); !errors.Is(err, upstream.ErrNotFound) || len(got) > 0 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// remembering is a memory that drops nothing.
type remembering struct{ kept sync.Map }

func (r *remembering) Get(d pull.Digest) ([]byte, bool) {
	content, ok := r.kept.Load(d)
	if !ok {
		return nil, false
	}
	return content.([]byte), true
}

func (r *remembering) Put(d pull.Digest, content []byte) { r.kept.Store(d, content) }
func (r *remembering) Delete(d pull.Digest)              { r.kept.Delete(d) }
