package upstream

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// told is an endpoint that answers as it is told.
type told struct {
	Endpoint
	err error

	stale  bool
	body   string
	after  time.Duration
	opened int
	closed int
}

func (e *told) Tags(context.Context, string, url.Values) (TagList, error) {
	return TagList{Tags: []string{e.body}, Stale: e.stale}, e.err
}

func (e *told) Manifest(ctx context.Context, _, _ string) (Content, error) {
	select {
	case <-time.After(e.after):
	case <-ctx.Done():
		return Content{}, context.Cause(ctx)
	}
	if e.err != nil {
		return Content{}, e.err
	}
	e.opened++
	return Content{Body: &toldContent{strings.NewReader(e.body), e, ctx}, Stale: e.stale}, nil
}

func (e *told) Resolve(context.Context, string, string) (Descriptor, error) {
	if e.stale {
		return Descriptor{}, ErrStale
	}
	return Descriptor{MediaType: e.body}, e.err
}

type toldContent struct {
	io.Reader
	e   *told
	ctx context.Context
}

func (c *toldContent) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, c.ctx.Err()
	}
	return c.Reader.Read(p)
}

func (c *toldContent) Close() error { c.e.closed++; return nil }

// Issue 12, point 11: a parent that could not ask is the last resort for a tag.
func TestAStaleTagServesOnlyIfNoOtherEndpointDoes(t *testing.T) {
	stale := func() *told { return &told{stale: true, body: "stale"} }
	fresh := func(after time.Duration) *told { return &told{body: "fresh", after: after} }
	fails := func(err error) *told { return &told{err: err} }
	for name, c := range map[string]struct {
		endpoints []*told
		ref       string
		want      string
		took      time.Duration
	}{
		"a fresh one behind it":               {endpoints: []*told{stale(), fresh(0)}, want: "fresh"},
		"a fresh one before it":               {endpoints: []*told{fresh(0), stale()}, want: "fresh"},
		"the next one is away":                {endpoints: []*told{stale(), fails(ErrRefused)}, want: "stale"},
		"the next one has not got it":         {endpoints: []*told{stale(), fails(ErrNotFound)}, want: "stale"},
		"the next one refuses":                {endpoints: []*told{stale(), fails(ErrDenied)}, want: "stale"},
		"it is the last one":                  {endpoints: []*told{fails(ErrRefused), stale()}, want: "stale"},
		"two of them, and a fresh one":        {endpoints: []*told{stale(), stale(), fresh(0)}, want: "fresh"},
		"two of them":                         {endpoints: []*told{stale(), stale()}, want: "stale"},
		"the next one is slow":                {endpoints: []*told{stale(), fresh(5 * time.Second)}, want: "fresh", took: 5 * time.Second},
		"the next one is too slow":            {endpoints: []*told{stale(), fresh(time.Hour)}, want: "stale", took: besideAfter},
		"by digest, nothing is ever stale":    {endpoints: []*told{stale(), fresh(0)}, ref: subjectOf(1).String(), want: "stale"},
		"one that is slow before it":          {endpoints: []*told{fresh(time.Hour), stale()}, want: "stale", took: 2 * besideAfter},
		"one that is slow before it, in time": {endpoints: []*told{fresh(12 * time.Second), stale()}, want: "fresh", took: 12 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if c.ref == "" {
					c.ref = "1"
				}
				var all []Endpoint
				for _, e := range c.endpoints {
					all = append(all, e)
				}
				began := time.Now()
				content, err := Fallback(all...).Manifest(t.Context(), "app", c.ref)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("it took %s, want %s", took, c.took)
				}
				body, err := io.ReadAll(content.Body)
				if string(body) != c.want || err != nil || content.Stale != (c.want == "stale") {
					t.Errorf("%q, stale: %t, %v", body, content.Stale, err)
				}
				content.Body.Close()
				synctest.Wait()
				for i, e := range c.endpoints {
					if e.closed != e.opened {
						t.Errorf("endpoint %d: %d of %d bodies were closed", i, e.closed, e.opened)
					}
				}
			})
		})
	}
	if _, err := Fallback(stale(), fails(ErrNotFound)).Resolve(t.Context(), "app", "1"); !errors.Is(err, ErrStale) {
		t.Errorf("HEAD, and nobody else has it: %v", err)
	}
	if l, err := Fallback(stale(), fresh(0)).Tags(t.Context(), "app", nil); err != nil || l.Stale {
		t.Errorf("tags: %v, %v", l, err)
	}
	if l, err := Fallback(stale(), fails(ErrNotFound)).Tags(t.Context(), "app", nil); err != nil || !l.Stale {
		t.Errorf("tags, and nobody else has it: %v, %v", l, err)
	}
	if d, err := Fallback(stale(), fresh(0)).Resolve(t.Context(), "app", "1"); err != nil || d.MediaType != "fresh" {
		t.Errorf("HEAD: %v, %v", d, err)
	}
}

func TestAStaleTagIsLetGoWhenTheCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := &told{stale: true, body: "stale"}
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		if _, err := Fallback(first, &told{body: "fresh", after: time.Hour}).Manifest(ctx, "app", "1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		synctest.Wait()
		if first.closed != 1 {
			t.Errorf("its body was closed %d times", first.closed)
		}
	})
}

// It answered: no retry, and no verdict on the host.
func TestAStaleTagIsNoFailureOfTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &fakeRegistry{answer: func(context.Context, int) error { return ErrStale }}
		r := Breaker(Retry(inner))
		for range 3 * failureThreshold {
			if _, err := r.Resolve(t.Context(), "app", "1"); !errors.Is(err, ErrStale) {
				t.Fatal(err)
			}
			if _, err := r.Referrers(t.Context(), "app", subjectOf(1)); !errors.Is(err, ErrStale) {
				t.Fatal(err)
			}
		}
		if got := inner.count(); got != 6*failureThreshold {
			t.Errorf("asked %d times", got)
		}
	})
}

// A host that was away is back when it answers, whatever it could not ask.
func TestAStaleAnswerShowsThatTheHostIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &fakeRegistry{answer: func(_ context.Context, n int) error {
			if n <= failureThreshold {
				return unhealthy(ErrRefused)
			}
			return ErrStale
		}}
		r := Breaker(inner)
		for range failureThreshold {
			_, _ = r.Resolve(t.Context(), "app", "1")
		}
		time.Sleep(2 * minOpen)
		for range 3 {
			_, _ = r.Resolve(t.Context(), "app", "1")
		}
		if got := inner.count(); got != failureThreshold+3 {
			t.Errorf("asked %d times: the host is taken for one that is away", got)
		}
	})
}
