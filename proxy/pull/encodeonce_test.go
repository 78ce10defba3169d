package pull_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

const longEnough = 300 // referrers, of which a list is encoded once for all

// longWorld is a mirror of a subject with a long list, and a memory that takes
// nothing.
func longWorld(t *testing.T, change func(*mirror.Options)) (m mirrortest.Mirror, o *mirrortest.Origin, subject pull.Descriptor, records *readRecords) {
	t.Helper()
	o = mirrortest.NewOrigin()
	o.API = true
	subject, _ = o.Image("app", "1", mirrortest.Bytes(1, 50))
	for i := range longEnough {
		o.Attach(subject, fmt.Sprint("type", i))
	}
	records = &readRecords{}
	m = mirrortest.New(t, o, func(opts *mirror.Options) {
		records.Records, opts.Records = opts.Records, records
		if change != nil {
			change(opts)
		}
	})
	return m, o, subject, records
}

// sent returns the first byte of a list as it is sent: lists that share it were
// encoded once.
func sent(t *testing.T, got pull.Referrers, err error) *byte {
	t.Helper()
	if err != nil || got.List.Len() != longEnough {
		t.Errorf("%d are listed as they are sent (%d are not), %s, %v", got.List.Len(), len(got.Manifests), got.Outcome, err)
		return nil
	}
	return &got.List.Bytes()[0]
}

// Issue 21, part 3: a kept list of thousands is read, decoded, merged and encoded
// once, and not for each request, though memory is short.
func TestALongListIsEncodedOnceThoughMemoryTakesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _, subject, records := longWorld(t, nil)
		if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
			t.Fatal(err)
		}
		records.taken()
		var first *byte
		for range 20 {
			got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
			if at := sent(t, got, err); got.Outcome != pull.Hit || first != nil && at != first {
				t.Errorf("%s: it was encoded anew", got.Outcome)
			} else {
				first = at
			}
		}
		if n := records.taken(); n != 0 {
			t.Errorf("20 hits read the record %d times", n)
		}
	})
}

// Who waits for the same lookup gets the same bytes.
func TestALongListIsEncodedOnceForAllWhoWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, o, subject, _ := longWorld(t, nil)
		release := o.Hold("GET referrers app " + mirrortest.Short(subject.Digest.String()))
		all := make(chan *byte, 10)
		for range cap(all) {
			go func() {
				got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
				all <- sent(t, got, err)
			}()
		}
		synctest.Wait()
		release()
		first := <-all
		for range cap(all) - 1 {
			if <-all != first {
				t.Error("it is encoded for each")
			}
		}
		got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
		if sent(t, got, err) != first {
			t.Error("what is kept is encoded again")
		}
	})
}

// While the upstream cannot be asked, clients are told the last full list, and
// those who wait for it at the same time share what that costs.
func TestAStaleLongListIsMadeOnceForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gate sync.WaitGroup
		m, o, subject, records := longWorld(t, nil)
		got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
		if err != nil {
			t.Fatal(err)
		}
		o.List(subject.Digest, got.Manifests[0]) // so that there is something to merge
		time.Sleep(m.Rules.ReferrersTTL)
		defer o.Hold("GET referrers app " + mirrortest.Short(subject.Digest.String()))()
		all := make(chan *byte, 10)
		for range cap(all) {
			go func() {
				got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
				if !got.Stale {
					t.Errorf("it is told as %s", got.Outcome)
				}
				all <- sent(t, got, err)
			}()
		}
		synctest.Wait()
		records.taken()
		gate.Add(1)
		records.hold(&gate)
		time.Sleep(m.Rules.MaxWait)
		synctest.Wait() // all have waited long enough, and one reads the record
		gate.Done()
		first := <-all
		for range cap(all) - 1 {
			if <-all != first {
				t.Error("it is encoded for each")
			}
		}
		if n := records.taken(); n != 1 {
			t.Errorf("ten clients read the record %d times", n)
		}
	})
}

// What could not be asked anew for a client's sake is what is kept, for all who
// wish it in the next five seconds.
func TestAWishThatFailedCostsNoDecodingOfALongList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, o, subject, records := longWorld(t, nil)
		if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		o.Fail("*", upstream.ErrRefused)
		if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest, pull.NoOlderThan(0)); err != nil || !got.Stale {
			t.Fatalf("stale %t, %v", got.Stale, err)
		}
		records.taken()
		for range 5 {
			got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest, pull.NoOlderThan(0))
			if sent(t, got, err); !got.Stale || got.Partial || !got.At.IsZero() || got.Outcome != pull.Stale {
				t.Errorf("it is told as %s, stale %t, partial %t, of %s", got.Outcome, got.Stale, got.Partial, got.At)
			}
		}
		if n := records.taken(); n != 0 {
			t.Errorf("five wishes read the record %d times", n)
		}
	})
}

// While an upstream is away, each question about an expired list fails anew. What
// is told then is what is kept, by the API and by the tag.
func TestALongListIsNotDecodedWhileTheUpstreamIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, o, subject, records := longWorld(t, nil)
		if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(m.Rules.ReferrersTTL)
		o.Fail("*", upstream.ErrRefused)
		tag := referrers.TagOf(subject.Digest)
		if made, err := m.Manifest(t.Context(), mirrortest.App, tag); err != nil || !made.Stale {
			t.Fatalf("by the tag: stale %t, %v", made.Stale, err)
		}
		records.taken()
		asked := len(o.Transcript())
		var first *byte
		for range 5 {
			got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
			at := sent(t, got, err)
			if !got.Stale || got.Partial || !got.At.IsZero() || got.Outcome != pull.Stale || first != nil && at != first {
				t.Errorf("it is told as %s, stale %t, partial %t, of %s", got.Outcome, got.Stale, got.Partial, got.At)
			}
			first = at
			made, err := m.Manifest(t.Context(), mirrortest.App, tag)
			if index, _, readErr := referrers.ReadIndex(referrers.Parse(made.Bytes)); err != nil || readErr != nil || !made.Stale || len(index) != longEnough {
				t.Errorf("by the tag: %d, stale %t, %v, %v", len(index), made.Stale, err, readErr)
			}
		}
		if n := records.taken(); n != 0 {
			t.Errorf("five questions read the record %d times", n)
		}
		if len(o.Transcript()) == asked {
			t.Error("the upstream is not asked any more")
		}
	})
}

// What another source lists beside a list that is kept is told, too, though it is
// no more than claimed.
func TestAStaleLongListGrowsByWhatAnotherSourceLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, o, subject, _ := longWorld(t, nil)
		if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(m.Rules.ReferrersTTL)
		o.Fail("GET referrers app "+mirrortest.Short(subject.Digest.String()), upstream.ErrRefused)
		another := o.Attach(subject, "another")
		o.List(subject.Digest, another)
		o.Fail("GET manifest app "+mirrortest.Short(another.Digest.String()), upstream.ErrRefused)
		if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || got.List.Len() != longEnough+1 || !got.Stale || !got.Partial {
			t.Errorf("%d are listed, %s, %v", got.List.Len(), got.Outcome, err)
		}
	})
}

// An answer that stays incomplete for a while is encoded once.
func TestAListThatIsBeingOpenedIsEncodedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, o, subject, _ := longWorld(t, nil)
		// One is listed and not there, and asking again would not help soon.
		o.Claims = []pull.Descriptor{{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: mirrortest.IndexAlgorithm.FromString("nowhere"), Size: 3}}
		ask := func() *byte {
			got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
			if !got.Stale || !got.Partial {
				t.Errorf("stale %t, partial %t, %v", got.Stale, got.Partial, err)
			}
			return sent(t, got, err)
		}
		first := ask()
		if again := ask(); again != first {
			t.Error("it is encoded for each")
		}
	})
}

// An expired long list is decoded once for the lookup that replaces it, and
// once when the new one is made ready.
func TestALookupDecodesALongListOnlyWhereItHasTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _, subject, records := longWorld(t, nil)
		for range 2 {
			if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
				t.Fatal(err)
			}
			time.Sleep(m.Rules.ReferrersTTL)
		}
		records.taken()
		got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
		if sent(t, got, err); got.Outcome != pull.Miss {
			t.Errorf("it is told as %s", got.Outcome)
		}
		if n := records.taken(); n != 2 {
			t.Errorf("the record is read %d times", n)
		}
	})
}

// Issue 12, "Shown by": a hit costs what is sent. It makes its key, and no copy
// of the list.
func TestAHitOfAListMakesNothingButItsKey(t *testing.T) {
	for _, many := range []int{0, 1, 10} {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		for i := range many {
			o.Attach(subject, fmt.Sprint("type", i))
		}
		m := mirrortest.New(t, o, nil)
		ask := func() {
			if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || len(got.Manifests) != many {
				t.Fatalf("%d are listed, %v", len(got.Manifests), err)
			}
		}
		ask()
		if n := testing.AllocsPerRun(100, ask); n > 1 {
			t.Errorf("a hit of %d makes %.0f allocations", many, n)
		}
	}
}
