package flight_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/upstream"
)

// slowly is a body that waits before each piece of n bytes.
type slowly struct {
	r    io.Reader
	wait time.Duration
	n    int
}

func (s slowly) Read(b []byte) (int, error) {
	time.Sleep(s.wait)
	return s.r.Read(b[:min(len(b), s.n)])
}

func TestAReaderIsBrokenOffAfterTwoMinutesOfSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rest := make(chan struct{})
		s := &scripted{content: bytesOf(1, 8*mib), bodies: heldAt(mib, rest)}
		g := newGroup(t, newTestSink(memory.New()))
		f, _ := g.join(t, s.want(), s.start())
		var got bytes.Buffer
		began := time.Now()
		n, err := f.Follow(t.Context(), &got, 0, -1)
		if !errors.Is(err, upstream.ErrTimeout) || n != mib || time.Since(began) != 2*time.Minute {
			t.Errorf("%d bytes and %v after %s", n, err, time.Since(began))
		}
		close(rest) // the download has gone on
		if n, err := f.Follow(t.Context(), &got, mib, -1); err != nil || n != 7*mib {
			t.Errorf("%d bytes, %v", n, err)
		}
		f.Release()
		s.wantAsked(t, "0+-1")
	})
}

// A reader far behind a download that gets on has to wait for its turn.
func TestAReaderWaitsForADownloadThatGetsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, 8*mib), bodies: func(_ int64, body []byte) io.ReadCloser {
			return io.NopCloser(slowly{bytes.NewReader(body), 10 * time.Second, 128 << 10})
		}}
		g := newGroup(t, newTestSink(memory.New()))
		f, _ := g.join(t, s.want(), s.start())
		defer f.Release()
		r := f.NewReader(flight.ReadOptions{Parts: []cache.Span{{From: 7 * mib, To: 7*mib + 10}}, Patient: true})
		defer r.Close()
		began := time.Now()
		if n, err := r.Follow(t.Context(), io.Discard, 7*mib, 10); err != nil || n != 10 {
			t.Errorf("%d bytes and %v after %s", n, err, time.Since(began))
		}
		if took := time.Since(began); took < 5*time.Minute {
			t.Errorf("it took %s", took)
		}
	})
}

// What others get is nothing to a reader whose request is silent.
func TestAReaderIsBrokenOffThoughTheDownloadGetsOnElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const at = 48 * mib
		rest := make(chan struct{})
		defer close(rest)
		s := &scripted{content: bytesOf(1, 64*mib), bodies: func(from int64, body []byte) io.ReadCloser {
			if from >= at {
				return heldAt(0, rest)(from, body)
			}
			return io.NopCloser(slowly{bytes.NewReader(body), 10 * time.Second, 128 << 10})
		}}
		g := newGroup(t, newTestSink(memory.New()))
		f, _ := g.join(t, s.want(), s.start())
		defer f.Release()
		go f.Follow(t.Context(), io.Discard, 0, -1)
		synctest.Wait()
		r := f.NewReader(flight.ReadOptions{Parts: []cache.Span{{From: at, To: at + 10}}})
		defer r.Close()
		began := time.Now()
		n, err := r.Follow(t.Context(), io.Discard, at, 10)
		if took := time.Since(began); n != 0 || !errors.Is(err, upstream.ErrTimeout) || took < 2*time.Minute || took > 130*time.Second {
			t.Errorf("%d bytes and %v after %s", n, err, took)
		}
	})
}

// What is passed through is waited for as long.
func TestWhatIsPassedThroughIsWaitedForTwoMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, 8*mib)}
		g := newGroup(t, newTestSink(memory.New()))
		f, _ := g.join(t, s.want(), s.start())
		defer f.Release()
		if _, err := f.Follow(t.Context(), io.Discard, 0, -1); err != nil {
			t.Fatal(err)
		}
		for _, silence := range []time.Duration{time.Minute, time.Hour} {
			silent := &silentSource{scripted: s, silence: silence}
			began := time.Now()
			_, err := f.PassThrough(t.Context(), io.Discard, silent, 0, 10, func(int64) {})
			if (err == nil) != (silence == time.Minute) || time.Since(began) != min(silence, 2*time.Minute) {
				t.Errorf("a silence of %s: %v after %s", silence, err, time.Since(began))
			}
		}
	})
}

// silentSource answers after a silence.
type silentSource struct {
	*scripted
	silence time.Duration
}

func (s *silentSource) Blob(ctx context.Context, from, n int64) (upstream.Content, error) {
	select {
	case <-time.After(s.silence):
		return s.scripted.Blob(ctx, from, n)
	case <-ctx.Done():
		return upstream.Content{}, context.Cause(ctx)
	}
}

// An answer may take a minute to begin. What nobody waits for is judged by what
// has come since then.
func TestADownloadIsJudgedByWhatComesAfterTheFirstAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		first    time.Duration // until the first byte, after an answer that takes 55 s
		complete bool
	}{"a body that begins within a minute": {55 * time.Second, true}, "a body that does not": {2 * time.Minute, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{content: bytesOf(1, 8*mib), gate: make(chan struct{}), bodies: func(_ int64, body []byte) io.ReadCloser {
					return io.NopCloser(io.MultiReader(slowly{bytes.NewReader(body[:mib]), c.first, mib}, bytes.NewReader(body[mib:])))
				}}
				g := newGroup(t, newTestSink(memory.New()))
				f, _ := g.join(t, s.want(), s.start())
				f.Release()
				time.Sleep(55 * time.Second)
				close(s.gate)
				<-f.Done()
				if (f.Err() == nil) != c.complete {
					t.Error(f.Err())
				}
			})
		})
	}
}

// A request after one that got nothing in the usual time is waited for longer;
// once something comes, the usual time is enough again.
func TestAResumptionThatGainedNothingIsFollowedByAPatientOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &patientSource{scripted: &scripted{content: bytesOf(1, 8*mib)}}
		gains := []int{mib, 0, mib, 8 * mib}
		s.bodies = func(_ int64, body []byte) io.ReadCloser {
			n := min(gains[0], len(body))
			gains = gains[1:]
			return cutAfter(body, n, upstream.ErrTimeout)
		}
		g := newGroup(t, newTestSink(memory.New()))
		start := s.start()
		start.Source = s
		if got, err := g.read(s.want(), start); err != nil || !bytes.Equal(got, s.content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if want := []bool{false, false, true, false}; !slices.Equal(s.patient, want) {
			t.Errorf("patient: %v, want %v", s.patient, want)
		}
	})
}

// Patience is over once something comes: another request that begins then, for a
// range far ahead, waits as long as usual.
func TestARequestBesideAPatientOneThatGainsIsNotPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &patientSource{scripted: &scripted{content: bytesOf(1, 32*mib)}}
		open, asked := make(chan struct{}), 0
		s.bodies = func(from int64, body []byte) io.ReadCloser {
			asked++
			switch asked {
			case 1:
				return cutAfter(body, mib, upstream.ErrTimeout)
			case 2:
				return cutAfter(body, 0, upstream.ErrTimeout)
			case 3:
				return heldAt(mib, open)(from, body)
			}
			return io.NopCloser(bytes.NewReader(body))
		}
		g := newGroup(t, newTestSink(memory.New()))
		start := s.start()
		start.Source = s
		all := make(chan error, 1)
		go func() {
			_, err := g.read(s.want(), start)
			all <- err
		}()
		time.Sleep(time.Minute)
		f, _ := g.join(t, s.want(), start)
		defer f.Release()
		if err := readParts(f, s.content, cache.Span{From: 24 * mib, To: 25 * mib}); err != nil {
			t.Error(err)
		}
		close(open)
		if err := <-all; err != nil {
			t.Error(err)
		}
		if want := []bool{false, false, true, false}; len(s.patient) < 4 || !slices.Equal(s.patient[:4], want) {
			t.Errorf("patient: %v, want %v", s.patient, want)
		}
	})
}

// patientSource notes which requests are patient.
type patientSource struct {
	*scripted
	patient []bool
}

func (s *patientSource) Blob(ctx context.Context, from, n int64) (upstream.Content, error) {
	s.patient = append(s.patient, upstream.IsPatient(ctx))
	return s.scripted.Blob(ctx, from, n)
}
