package warm_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/warm"
	"github.com/entrepot/entrepot/upstream"
)

func image(ref string) warm.Reference {
	return warm.Reference{Repository: mirrortest.App, Ref: ref}
}

func selection(t *testing.T, ref string, platforms ...string) retention.Selection {
	t.Helper()
	wanted, err := retention.ParsePlatforms(platforms)
	if err != nil {
		t.Fatal(err)
	}
	return retention.Selection{Image: image(ref), Platforms: wanted, Referrers: true}
}

// told are the events of a fetch.
type told struct {
	mu  sync.Mutex
	all []warm.Event
}

func (l *told) add(e warm.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

func (l *told) of(kind warm.EventKind) (all []warm.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.all {
		if e.Event == kind {
			all = append(all, e)
		}
	}
	return all
}

// contentAsked are the requests for content.
func contentAsked(lines []string) []string {
	return slices.DeleteFunc(lines, func(line string) bool {
		return !strings.HasPrefix(line, "GET manifest") && !strings.HasPrefix(line, "GET blob") || strings.Contains(line, "sha256-")
	})
}

func get(what string, of warm.Descriptor) string {
	return "GET " + what + " app " + mirrortest.Short(of.Digest.String())
}

func TestOfAnIndexOnlyTheSelectedPlatformsAreFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		a := o.Attest("1")
		m := mirrortest.New(t, o, nil)
		var events told
		s := selection(t, "1", "linux/amd64")
		done, err := m.Mirror.Pinner.Fetch(t.Context(), s, warm.FetchOptions{Report: events.add})
		if err != nil || done.Manifests != 5 || done.Blobs != 4 || done.Fetched < 5 { // a lookup of referrers may have been faster
			t.Errorf("%+v, %v", done, err)
		}
		blobs := slices.Concat(m.BlobsOf(t, a.Platforms[0].Digest), m.BlobsOf(t, a.Of[0].Digest))
		want := []string{"GET manifest app 1", get("manifest", a.Platforms[0]), get("manifest", a.Platforms[1]), get("manifest", a.Of[0]), get("manifest", a.Of[1])}
		for _, d := range blobs {
			want = append(want, get("blob", warm.Descriptor{Digest: d}))
		}
		slices.Sort(want)
		if got := contentAsked(o.Transcript()); !slices.Equal(got, want) {
			t.Errorf("asked for\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
		if !m.Mirror.Retention.HasAllOf(t.Context(), s, true) || m.Mirror.Retention.IsComplete(t.Context(), s.Image, false) {
			t.Error("what was selected is complete, and the image is not")
		}
		if found, done := events.of(warm.EventFound), events.of(warm.EventDone); len(found) != 4 || len(done) < 5 || found[0].Size <= 0 {
			t.Errorf("%d were told to be found, %d to be done", len(found), len(done))
		}
		var none *retention.NoPlatformError
		if _, err := m.Mirror.Pinner.Fetch(t.Context(), selection(t, "1", "linux/s390x"), warm.FetchOptions{}); !errors.As(err, &none) {
			t.Errorf("a platform that it does not have: %v", err)
		}
	})
}

// An upstream that limits its rate is asked for nothing until the time that it
// said, and then all is fetched.
func TestAFetchWaitsAsLongAsTheUpstreamSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		var layers []warm.Descriptor
		var entries []string
		for i := range 20 {
			layer := o.Put("app", "", mirrortest.Bytes(byte(i), 1000))
			layers, entries = append(layers, layer), append(entries, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":1000}`, layer.Digest))
		}
		o.Put("app", "application/vnd.oci.image.manifest.v1+json", fmt.Appendf(nil, `{"schemaVersion":2,"layers":[%s]}`, strings.Join(entries, ",")), "1")
		const limit = 10 * time.Minute
		var release []func()
		for _, layer := range layers {
			release = append(release, o.Hold(get("blob", layer))) // so that the rest is in line when the first are told
			o.Fail(get("blob", layer), &upstream.RateLimitedError{RetryAfter: limit})
		}
		m := mirrortest.New(t, o, nil)
		var events told
		began := time.Now()
		ended := make(chan error)
		go func() {
			_, err := m.Mirror.Pinner.Fetch(t.Context(), selection(t, "1"), warm.FetchOptions{Jobs: 2, MaxWait: time.Hour, Report: events.add})
			ended <- err
		}()
		mirrortest.Wait()
		for _, let := range release {
			let()
		}
		time.Sleep(limit / 2)
		mirrortest.Wait()
		before := contentAsked(o.Transcript())
		o.ClearFailures()
		time.Sleep(limit/2 - time.Second)
		mirrortest.Wait()
		if asked := o.Transcript(); len(before) > 3 || len(asked) > 0 { // the manifest, and two jobs
			t.Errorf("while it was told not to, it asked %v, after %v", asked, before)
		}
		if err := <-ended; err != nil || time.Since(began) < limit {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		if got := contentAsked(o.Transcript()); len(got) != len(layers) {
			t.Errorf("afterwards: %v", got)
		}
		waiting := events.of(warm.EventWaiting)
		if len(waiting) == 0 || len(waiting) > 2 || waiting[0].Upstream != "hub" || !waiting[0].Until.Equal(began.Add(limit)) || !strings.Contains(waiting[0].Text, "blobs") {
			t.Errorf("told: %+v", waiting)
		}

		// Nobody waits for longer than is wanted.
		o.Image("app", "2", mirrortest.Bytes(99, 10))
		o.Fail("GET manifest app 2", &upstream.RateLimitedError{RetryAfter: limit})
		began = time.Now()
		_, err := m.Mirror.Pinner.Fetch(t.Context(), selection(t, "2"), warm.FetchOptions{MaxWait: limit - time.Second})
		var limited *upstream.RateLimitedError
		if !errors.As(err, &limited) || !errors.Is(err, warm.ErrIncomplete) || time.Since(began) > time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		// Nor is it asked for anything else of that class, by whomever.
		o.Transcript()
		if _, err = m.Mirror.Pinner.Fetch(t.Context(), selection(t, "1"), warm.FetchOptions{}); !errors.As(err, &limited) || len(o.Transcript()) > 0 {
			t.Errorf("another fetch: %v", err)
		}
	})
}

func TestAFetchThatWasInterruptedFetchesNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		a := o.Attest("1")
		m := mirrortest.New(t, o, nil)
		release := o.Hold(get("blob", a.Blobs[1])) // the last one comes slowly
		ctx, interrupt := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := m.Mirror.Pinner.Fetch(ctx, selection(t, "1"), warm.FetchOptions{Jobs: 2})
			ended <- err
		}()
		mirrortest.Wait()
		interrupt()
		if err := <-ended; err == nil {
			t.Error("it was not interrupted")
		}
		release()
		mirrortest.Wait()
		if _, err := m.Mirror.Pinner.Fetch(t.Context(), selection(t, "1"), warm.FetchOptions{}); err != nil {
			t.Error(err)
		}
		asked := contentAsked(o.Transcript())
		if all := slices.Compact(slices.Clone(asked)); len(all) != len(asked) || len(all) < 11 {
			t.Errorf("asked for %q", asked)
		}
		if done, err := m.Mirror.Pinner.Fetch(t.Context(), selection(t, "1"), warm.FetchOptions{}); err != nil || done.Fetched != 0 || len(contentAsked(o.Transcript())) > 0 {
			t.Errorf("what is there is fetched: %+v, %v", done, err)
		}
	})
}

func TestAClientThatPullsWhatIsBeingFetchedJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		_, layer := o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		_, same := o.Image("app", "2", mirrortest.Bytes(1, 100<<10))
		if layer.Digest != same.Digest {
			t.Fatal("the layers differ")
		}
		m := mirrortest.New(t, o, nil)
		release := o.Hold(get("blob", layer))
		var events told
		ended := make(chan error)
		go func() {
			result, _ := m.Mirror.Pinner.FetchAll(t.Context(), []warm.Wanted{{Selection: selection(t, "1")}, {Selection: selection(t, "2")}}, warm.FetchOptions{Report: events.add})
			ended <- result.Err()
		}()
		mirrortest.Wait()
		read := make(chan error)
		go func() { read <- m.Read(t.Context(), mirrortest.App, layer.Digest) }()
		mirrortest.Wait()
		release()
		if err := errors.Join(<-read, <-ended); err != nil {
			t.Error(err)
		}
		if n := mirrortest.Count(o.Transcript(), get("blob", layer)); n != 1 {
			t.Errorf("it was asked for %d times", n)
		}
		about := slices.DeleteFunc(events.all, func(e warm.Event) bool { return e.Digest != layer.Digest || e.Event == warm.EventProgress })
		if len(about) != 3 || about[0].Event != warm.EventFound || about[1].Event != warm.EventStarted || about[2].Event != warm.EventDone {
			t.Errorf("what two images share was told as %+v", about)
		}
	})
}

// Of a tag and a digest, the digest is what is fetched.
func TestATagThatIsNotAtItsDigestIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		old, layer := o.Image("app", "1", mirrortest.Bytes(1, 1000))
		m := mirrortest.New(t, o, nil)
		s := selection(t, "1")
		s.At = old.Digest
		var events told
		fetch := func() []warm.Event {
			t.Helper()
			events.all = nil
			if _, err := m.Mirror.Pinner.Fetch(t.Context(), s, warm.FetchOptions{Report: events.add}); err != nil {
				t.Error(err)
			}
			return events.of(warm.EventNote)
		}
		if notes := fetch(); len(notes) > 0 {
			t.Errorf("where it is at it: %+v", notes)
		}
		moved, _ := o.Image("app", "1", mirrortest.Bytes(2, 1000))
		time.Sleep(time.Hour)
		if notes := fetch(); len(notes) != 1 || !strings.Contains(notes[0].Text, "the tag is at "+moved.Digest.String()) || !m.Store.Has(t.Context(), layer.Digest) {
			t.Errorf("where it is elsewhere: %+v", notes)
		}
		o.Remove("app", "1")
		time.Sleep(time.Hour)
		if notes := fetch(); len(notes) != 1 || !strings.Contains(notes[0].Text, "could not be looked at") {
			t.Errorf("where it is gone: %+v", notes)
		}
	})
}

// What is cached says nothing of what the tag points at now.
func TestATagThatCannotBeCheckedIsNotComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		o.Image("app", "1", mirrortest.Bytes(1, 1000))
		m := mirrortest.New(t, o, nil)
		if _, err := m.Mirror.Pinner.Fetch(t.Context(), selection(t, "1"), warm.FetchOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		o.Fail("HEAD manifest app 1", upstream.ErrRefused, upstream.ErrRefused)
		if _, err := m.Mirror.Pinner.Fetch(t.Context(), selection(t, "1"), warm.FetchOptions{}); !errors.Is(err, warm.ErrIncomplete) || !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		// It is asked again in a moment, if that is wanted.
		if _, err := m.Mirror.Pinner.Fetch(t.Context(), selection(t, "1"), warm.FetchOptions{Attempts: 2}); err != nil {
			t.Errorf("asked twice: %v", err)
		}
	})
}
