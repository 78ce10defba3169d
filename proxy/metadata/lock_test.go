package metadata

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
)

// watchedLock notes which records of lists are read under the lock. It is for
// tests with one goroutine.
type watchedLock struct {
	cache.Records
	l     *Ledger
	reads []string
	// during is called while a record is being read or scanned.
	during func(b cache.Bucket, key string)
}

func (w *watchedLock) Get(b cache.Bucket, key string) ([]byte, error) {
	if b == bucketReferrers {
		how := "free"
		if w.l.mu.TryLock() {
			w.l.mu.Unlock()
		} else {
			how = "locked"
		}
		w.reads = append(w.reads, how)
	}
	value, err := w.Records.Get(b, key)
	if w.during != nil {
		w.during(b, key)
	}
	return value, err
}

func (w *watchedLock) Scan(b cache.Bucket, prefix string, fn func(string, []byte) bool) error {
	if w.during != nil {
		w.during(b, prefix)
	}
	return w.Records.Scan(b, prefix, fn)
}

func newWatchedLock() (*Ledger, *watchedLock) {
	w := &watchedLock{Records: memory.New().Records()}
	w.l = New(w, nil)
	return w.l, w
}

var (
	lockRepo = Repository{"docker.io", "library/alpine"}
	subject  = digest.FromString("subject")
)

// listOf is a list that is too long to be held.
func listOf(n int, at time.Time) Referrers {
	r := Referrers{At: at}
	for i := range n {
		r.Manifests = append(r.Manifests, Descriptor{MediaType: "application/vnd.example", Digest: digest.FromString(fmt.Sprint(i)), Size: int64(i)})
	}
	return r
}

// Issue 21, part 3: a list of thousands takes long to encode and to decode, and
// everybody's hits wait for the lock.
func TestNoListIsEncodedOrDecodedUnderTheLock(t *testing.T) {
	attached := Descriptor{MediaType: "application/vnd.example", Digest: digest.FromString("attached"), Size: 3}
	t.Run("encoded when it is recorded", func(t *testing.T) {
		l, w := newWatchedLock()
		r := listOf(1000, time.Unix(5, 0))
		w.during = func(b cache.Bucket, _ string) {
			if b == bucketAttached { // it is under the lock now
				r.Manifests[7].Size = 4711
			}
		}
		l.RecordReferrers(lockRepo, subject, r, nil)
		w.during = nil
		got, _ := l.Referrers(lockRepo, subject)
		i := slices.IndexFunc(got.Manifests, func(d Descriptor) bool { return d.Digest == r.Manifests[7].Digest })
		if r.Manifests[7].Size != 4711 || len(got.Manifests) != 1000 || got.Manifests[i].Size != 7 {
			t.Errorf("%d are on record, one with a size of %d that it had when the lock was taken", len(got.Manifests), got.Manifests[i].Size)
		}
	})
	t.Run("recorded while an index attached another entry", func(t *testing.T) {
		l, _ := newWatchedLock()
		l.PutAttached(lockRepo, subject, attached)
		l.RecordReferrers(lockRepo, subject, listOf(1000, time.Unix(5, 0)), nil)
		if got, _ := l.Referrers(lockRepo, subject); !got.At.IsZero() || len(got.Manifests) != 1000 {
			t.Errorf("%d of %s", len(got.Manifests), got.At)
		}
		l.RecordReferrers(lockRepo, subject, listOf(1000, time.Unix(6, 0)), []Descriptor{attached})
		if got, _ := l.Referrers(lockRepo, subject); !got.At.Equal(time.Unix(6, 0)) {
			t.Errorf("the answer knew of it, and is of %s", got.At)
		}
	})
	t.Run("decoded when an index attaches an entry", func(t *testing.T) {
		l, w := newWatchedLock()
		l.RecordReferrers(lockRepo, subject, listOf(1000, time.Unix(5, 0)), nil)
		w.reads = nil
		l.PutAttached(lockRepo, subject, attached)
		if slices.Contains(w.reads, "locked") || len(w.reads) != 1 {
			t.Errorf("the list is read %v", w.reads)
		}
		if got, _ := l.Referrers(lockRepo, subject); !got.At.IsZero() || len(got.Manifests) != 1000 {
			t.Errorf("%d of %s", len(got.Manifests), got.At)
		}
	})
	t.Run("decoded, and another change overtakes that", func(t *testing.T) {
		for name, c := range map[string]struct {
			change func(l *Ledger)
			want   int
			due    bool
			reads  []string
		}{
			"of something else": {
				func(l *Ledger) { l.PutTag(lockRepo, "1", Tag{}) }, 1000, true, []string{"free", "locked"},
			},
			"of the list": {
				func(l *Ledger) { l.PutReferrers(lockRepo, subject, listOf(2000, time.Unix(6, 0))) }, 2000, true, []string{"free", "locked", "free"},
			},
			"to a list that has it": {func(l *Ledger) {
				r := listOf(2000, time.Unix(6, 0))
				r.Manifests = append(r.Manifests, attached)
				l.PutReferrers(lockRepo, subject, r)
			}, 2001, false, []string{"free", "locked", "free"}},
		} {
			l, w := newWatchedLock()
			l.PutReferrers(lockRepo, subject, listOf(1000, time.Unix(5, 0)))
			w.reads = nil
			w.during = func(b cache.Bucket, _ string) {
				if b == bucketReferrers {
					w.during = nil
					c.change(l)
				}
			}
			l.PutAttached(lockRepo, subject, attached)
			if !slices.Equal(w.reads, c.reads) {
				t.Errorf("%s: it is read %v, want %v", name, w.reads, c.reads)
			}
			if got, _ := l.Referrers(lockRepo, subject); got.At.IsZero() != c.due || len(got.Manifests) != c.want {
				t.Errorf("%s: %d of %s, want %d, due %t", name, len(got.Manifests), got.At, c.want, c.due)
			}
			if got := l.Attached(lockRepo, subject); len(got) != 1 {
				t.Errorf("%s: attached are %v", name, got)
			}
		}
	})
}

// On a busy mirror something changes at any time. What has been encoded is held
// all the same, but not if it was changed itself.
func TestAListThatIsEncodedWhileSomethingElseChangesIsHeld(t *testing.T) {
	seen := Descriptor{MediaType: "application/vnd.example", Digest: digest.FromString("seen"), Size: 3}
	for name, c := range map[string]struct {
		change func(l *Ledger)
		held   bool
	}{
		"a tag":                     {func(l *Ledger) { l.PutTag(lockRepo, "1", Tag{}) }, true},
		"a list of another subject": {func(l *Ledger) { l.PutReferrers(lockRepo, seen.Digest, listOf(1, time.Now())) }, true},
		"another client's encoding": {func(l *Ledger) { l.EncodeReferrers(lockRepo, subject) }, true},
		"the list":                  {func(l *Ledger) { l.PutReferrers(lockRepo, subject, listOf(400, time.Unix(6, 0))) }, false},
		"the list after a lookup":   {func(l *Ledger) { l.RecordReferrers(lockRepo, subject, listOf(400, time.Unix(6, 0)), nil) }, false},
		"what was seen":             {func(l *Ledger) { l.PutSeen(lockRepo, subject, seen) }, false},
		"what is gone":              {func(l *Ledger) { l.DropSeen(lockRepo, subject, seen.Digest) }, false},
		"an entry of an index":      {func(l *Ledger) { l.PutAttached(lockRepo, subject, seen) }, false},
		"the repository":            {func(l *Ledger) { l.DropRepository(lockRepo) }, false},
	} {
		for nth := range 2 { // the record is read, and then what was seen
			l, w := newWatchedLock()
			l.PutReferrers(lockRepo, subject, listOf(300, time.Unix(5, 0)))
			reads := 0
			w.during = func(b cache.Bucket, _ string) {
				if reads++; reads == nth+1 {
					w.during = nil
					c.change(l)
				}
			}
			l.EncodeReferrers(lockRepo, subject)
			w.during, w.reads = nil, nil
			got, _ := l.Listed(lockRepo, subject)
			want, exists := New(w.Records, nil).Listed(lockRepo, subject)
			wantHeld := c.held || nth == 0 && exists // what has changed before it is decoded is read again
			if held := len(w.reads) == 0; held != wantHeld {
				t.Errorf("%s changes after read %d: held %t, want %t", name, nth+1, held, wantHeld)
			}
			if got.Digest != want.Digest || !got.At.Equal(want.At) {
				t.Errorf("%s: it is %s of %s, want %s of %s", name, got.Digest, got.At, want.Digest, want.At)
			}
		}
	}
}

func TestWhoAsksWhileAListIsEncodedGetsIt(t *testing.T) {
	l, w := newWatchedLock()
	l.PutReferrers(lockRepo, subject, listOf(300, time.Unix(5, 0)))
	w.during = func(b cache.Bucket, _ string) {
		if b == bucketSeen {
			w.during = nil
			if got, ok := l.Referrers(lockRepo, subject); !ok || len(got.Manifests) != 300 {
				t.Errorf("%d are listed, %t", len(got.Manifests), ok)
			}
			if got, ok := l.Listed(lockRepo, subject); !ok || got.List.Len() != 300 {
				t.Errorf("%d are listed as it is sent, %t", got.List.Len(), ok)
			}
		}
	}
	l.EncodeReferrers(lockRepo, subject)
	// The one that ends first is held, whichever began first.
	key := Key(lockRepo, subject.String())
	l.answers.Remove(key)
	first, _ := l.beginEncoding(key, 0)
	l.beginEncoding(key, 0)
	l.endEncoding(key, first, Listed{Digest: subject})
	if got, ok := l.Listed(lockRepo, subject); !ok || got.Digest != subject {
		t.Errorf("what another began later keeps %s from being held", subject)
	}
}

// Who asks about what has no list takes no place of another's list.
func TestASubjectWithoutAListTakesNoPlace(t *testing.T) {
	l, _ := newWatchedLock()
	l.Listed(lockRepo, subject)
	if n := l.answers.Len(); n != 0 {
		t.Errorf("%d are held", n)
	}
}
