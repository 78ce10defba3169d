package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// fakeRegistry is a Registry within the process, for tests whose clock is
// synctest's. It records requests, and answer decides what it answers.
type fakeRegistry struct {
	mu     sync.Mutex
	asked  []string
	answer func(ctx context.Context, n int) error // n counts from 1
	closed int
}

func (r *fakeRegistry) ask(ctx context.Context, line string) error {
	r.mu.Lock()
	r.asked = append(r.asked, line)
	n := len(r.asked)
	r.mu.Unlock()
	if r.answer == nil {
		return nil
	}
	return r.answer(ctx, n)
}

func (r *fakeRegistry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

type toldBody struct {
	io.Reader
	r *fakeRegistry
}

func (b toldBody) Close() error {
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	b.r.closed++
	return nil
}

func (r *fakeRegistry) content(ctx context.Context, line string) (Content, error) {
	if err := r.ask(ctx, line); err != nil {
		return Content{}, err
	}
	return Content{Body: toldBody{strings.NewReader("body"), r}, Size: 4}, nil
}

func (r *fakeRegistry) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	return Descriptor{MediaType: "resolved"}, r.ask(ctx, "resolve "+repo+" "+ref)
}

func (r *fakeRegistry) Manifest(ctx context.Context, repo, ref string) (Content, error) {
	return r.content(ctx, "manifest "+repo+" "+ref)
}

func (r *fakeRegistry) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	return Descriptor{MediaType: "blob"}, r.ask(ctx, "resolve blob "+repo+" "+d.String())
}

func (r *fakeRegistry) Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	return r.content(ctx, fmt.Sprintf("blob %s %s %d %d", repo, d, from, n))
}

func (r *fakeRegistry) Referrers(ctx context.Context, repo string, subject Digest) (ReferrersList, error) {
	return ReferrersList{Manifests: []Descriptor{{MediaType: "referrer"}}}, r.ask(ctx, "referrers "+repo+" "+subject.String())
}

func (r *fakeRegistry) Tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	return TagList{Tags: []string{"tag"}}, r.ask(ctx, "tags "+repo+" "+page.Encode())
}

func TestPoliciesPassEverythingOnAndCloseBodies(t *testing.T) {
	for name, wrap := range map[string]func(Endpoint) Registry{
		"retry":    func(r Endpoint) Registry { return Retry(r) },
		"limit":    func(r Endpoint) Registry { return Limit(r, 1) },
		"endpoint": func(r Endpoint) Registry { return NewSlots(1).LimitEndpoint(r) },
		"breaker":  func(r Endpoint) Registry { return Breaker(r) },
		"second":   func(r Endpoint) Registry { return SecondConnection(r) },
		"fallback": func(r Endpoint) Registry {
			return Fallback(r, &fakeRegistry{answer: func(context.Context, int) error { return ErrUnsupported }})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inner := &fakeRegistry{}
			r := wrap(inner)
			ctx := t.Context()
			d := digest.FromString("x")
			for range 2 { // twice, so that a place that is not given back shows
				if got, err := r.Resolve(ctx, "repo", "ref"); err != nil || got.MediaType != "resolved" {
					t.Errorf("Resolve: %v, %v", got, err)
				}
				if got, err := r.ResolveBlob(ctx, "repo", d); err != nil || got.MediaType != "blob" {
					t.Errorf("ResolveBlob: %v, %v", got, err)
				}
				for _, get := range []func() (Content, error){
					func() (Content, error) { return r.Manifest(ctx, "repo", "ref") },
					func() (Content, error) { return r.Blob(ctx, "repo", d, 3, 4) },
				} {
					c, err := get()
					if err != nil {
						t.Fatal(err)
					}
					if b, err := io.ReadAll(c.Body); string(b) != "body" || err != nil {
						t.Errorf("the body is %q, %v", b, err)
					}
					c.Body.Close()
				}
				e, isEndpoint := r.(Endpoint)
				if isEndpoint != slices.Contains([]string{"retry", "endpoint", "breaker"}, name) {
					t.Errorf("it is an endpoint: %t", isEndpoint)
				} else if isEndpoint {
					if got, err := e.Referrers(ctx, "repo", d); err != nil || len(got.Manifests) != 1 {
						t.Errorf("Referrers: %v, %v", got, err)
					}
				}
				if got, err := r.Tags(ctx, "repo", url.Values{"n": {"5"}}); err != nil || len(got.Tags) != 1 {
					t.Errorf("Tags: %v, %v", got, err)
				}
			}
			once := []string{"resolve repo ref", "resolve blob repo " + d.String(), "manifest repo ref", "blob repo " + d.String() + " 3 4", "referrers repo " + d.String(), "tags repo n=5"}
			if _, isEndpoint := r.(Endpoint); !isEndpoint {
				once = slices.Delete(once, 4, 5)
			}
			if want := append(slices.Clone(once), once...); !slices.Equal(inner.asked, want) {
				t.Errorf("asked %q, want %q", inner.asked, want)
			}
			if inner.closed != 4 {
				t.Errorf("%d of 4 bodies were closed", inner.closed)
			}
		})
	}
}

func TestRetry(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		tries int
	}{
		"an upstream that gives no answer is asked three times": {ErrUnavailable, 3},
		"what is slow is asked for once more":                   {ErrTimeout, 2},
		"a connection that is not made in time is made anew":    {unhealthy(ErrTimeout), 3},
		"a refused connection answers at once":                  {ErrRefused, 1},
		"what is no registry's answer is not asked for again":   {ErrInvalidResponse, 1},
		"what it leads to is asked for again":                   {ErrThirdParty, 3},
		"a no is a no":                                          {ErrNotFound, 1},
		"a refusal is a refusal":                                {ErrDenied, 1},
		"who limits the rate is left alone":                     {&RateLimitedError{RetryAfter: time.Second}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := &fakeRegistry{answer: func(context.Context, int) error { return c.err }}
				began := time.Now()
				_, err := Retry(inner).Resolve(t.Context(), "repo", "ref")
				if !errors.Is(err, c.err) || inner.count() != c.tries {
					t.Errorf("%v after %d tries", err, inner.count())
				}
				if took := time.Since(began); c.tries == 1 && took != 0 || took > 2*time.Second {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

func TestWhatFailedBeforeTheCallerLeftIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unreachable := &fakeRegistry{answer: func(ctx context.Context, _ int) error {
			select {
			case <-time.After(5 * time.Second):
				return unhealthy(ErrTimeout)
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}}
		r := Breaker(Retry(unreachable))
		for range failureThreshold {
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			_, err := r.Manifest(ctx, "repo", "ref")
			cancel()
			if !errors.Is(err, ErrTimeout) {
				t.Error(err)
			}
		}
		before := unreachable.count()
		if _, err := r.Manifest(t.Context(), "repo", "ref"); !errors.Is(err, ErrUnavailable) || unreachable.count() != before {
			t.Errorf("a host that can't be reached is asked again, because nobody waited for the last try: %v", err)
		}
	})
}

func TestABodyOutlivesTheTriesOfItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var during context.Context
		inner := &fakeRegistry{answer: func(ctx context.Context, _ int) error { during = ctx; return nil }}
		c, err := Retry(inner).Blob(t.Context(), "repo", digest.FromString("x"), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if during.Err() != nil {
			t.Error("the request ended while its body was read")
		}
		c.Body.Close()
		if during.Err() == nil {
			t.Error("the request goes on after its body was closed")
		}
	})
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &fakeRegistry{}
		r := Limit(inner, 3)
		d := digest.FromString("x")
		first, err := r.Blob(t.Context(), "repo", d, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		second, err := r.Blob(t.Context(), "repo", d, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		// Two of three places are for blobs: a third blob waits, a question does not.
		third := make(chan error, 1)
		go func() {
			c, err := r.Blob(context.Background(), "repo", d, 0, -1)
			if err == nil {
				c.Body.Close()
			}
			third <- err
		}()
		synctest.Wait()
		if inner.count() != 2 || !first.IsAwaited() {
			t.Errorf("%d blobs are under way, the first is awaited: %t", inner.count(), first.IsAwaited())
		}
		if _, err := r.Resolve(t.Context(), "repo", "ref"); err != nil {
			t.Errorf("a question behind blobs: %v", err)
		}
		time.Sleep(time.Minute)
		first.Body.Close()
		if err := <-third; err != nil {
			t.Errorf("the third blob: %v", err)
		}
		if second.IsAwaited() {
			t.Error("nobody waits, and the second blob is awaited")
		}
		second.Body.Close()
		// A question that gets no turn is a fast no.
		var held []Content
		for range 3 {
			c, err := r.Manifest(t.Context(), "repo", "ref")
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, c)
		}
		began := time.Now()
		if _, err := r.Resolve(t.Context(), "repo", "ref"); !errors.Is(err, ErrUnavailable) || time.Since(began) != queueTimeout {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ctx, leave := context.WithCancel(t.Context())
		leave()
		if _, err := r.Resolve(ctx, "repo", "ref"); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that leaves: %v", err)
		}
		for _, c := range held {
			c.Body.Close()
		}
	})
}

// Questions about referrers may take a minute each: they hold up each other,
// and nothing else.
func TestQuestionsAboutReferrersHaveAQuarterOfThePlaces(t *testing.T) {
	for n, quarter := range map[int]int{32: 8, 8: 2, 7: 1, 2: 1} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			inner := &fakeRegistry{}
			r := NewSlots(n).LimitEndpoint(slowReferrers{inner, release})
			done := make(chan error, n)
			for range n {
				go func() { _, err := r.Referrers(context.Background(), "repo", digest.FromString("x")); done <- err }()
			}
			synctest.Wait()
			if got := inner.count(); got != quarter {
				t.Errorf("of %d places %d are for referrers, want %d", n, got, quarter)
			}
			if n > 2 {
				c, err := r.Blob(t.Context(), "repo", digest.FromString("x"), 0, -1)
				if err != nil || c.IsAwaited() {
					t.Errorf("a blob: %v, awaited by those about referrers", err)
				}
				c.Body.Close()
			}
			began := time.Now()
			if _, err := r.Resolve(t.Context(), "repo", "ref"); err != nil || time.Since(began) != 0 {
				t.Errorf("another question: %v after %s", err, time.Since(began))
			}
			for range n - quarter { // who gets no turn
				if err := <-done; !errors.Is(err, ErrUnavailable) || time.Since(began) != queueTimeout {
					t.Errorf("%v after %s", err, time.Since(began))
				}
			}
			close(release)
			for range quarter {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

type slowReferrers struct {
	*fakeRegistry
	release chan struct{}
}

func (s slowReferrers) Referrers(ctx context.Context, repo string, subject Digest) (ReferrersList, error) {
	list, err := s.fakeRegistry.Referrers(ctx, repo, subject)
	<-s.release
	return list, err
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failing := true
		inner := &fakeRegistry{answer: func(context.Context, int) error {
			if failing {
				return unhealthy(ErrUnavailable)
			}
			return nil
		}}
		r := Breaker(inner)
		ask := func() error { _, err := r.Resolve(t.Context(), "repo", "ref"); return err }
		for range failureThreshold {
			_ = ask()
		}
		if err := ask(); !errors.Is(err, ErrUnavailable) || inner.count() != failureThreshold {
			t.Errorf("open, it gave %v and asked %d times", err, inner.count())
		}
		time.Sleep(2 * minOpen)
		_ = ask() // the one that tries fails, and it stays open
		if err := ask(); err == nil || inner.count() != failureThreshold+1 {
			t.Errorf("half open, it asked %d times, %v", inner.count(), err)
		}
		failing = false
		time.Sleep(2 * maxOpen)
		for range 3 {
			if err := ask(); err != nil {
				t.Errorf("mended: %v", err)
			}
		}
	})
}

func TestABreakerAnswersForARateLimitUntilItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := true
		inner := &fakeRegistry{answer: func(context.Context, int) error {
			if limits {
				return &RateLimitedError{RetryAfter: 50 * time.Second}
			}
			return nil
		}}
		r := Breaker(inner)
		_, _ = r.Resolve(t.Context(), "repo", "ref")
		limits = false
		time.Sleep(30 * time.Second)
		_, err := r.Resolve(t.Context(), "other", "ref")
		var limited *RateLimitedError
		if !errors.As(err, &limited) || limited.RetryAfter != 20*time.Second || inner.count() != 1 {
			t.Errorf("%v, asked %d times", err, inner.count())
		}
		time.Sleep(20 * time.Second)
		if _, err := r.Resolve(t.Context(), "repo", "ref"); err != nil {
			t.Errorf("after its time: %v", err)
		}
	})
}

// A limit that is to last for an hour may be over in five seconds: one request
// a minute looks.
func TestALongLimitIsLookedAtEachMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := true
		inner := &fakeRegistry{answer: func(context.Context, int) error {
			if limits {
				return &RateLimitedError{RetryAfter: time.Hour}
			}
			return nil
		}}
		r := Breaker(inner)
		ask := func() error { _, err := r.Resolve(t.Context(), "repo", "ref"); return err }
		for range 10 * 60 {
			if ask() == nil {
				t.Fatal("it is said to be over")
			}
			time.Sleep(time.Second)
		}
		if got := inner.count(); got != 10 {
			t.Errorf("asked %d times in ten minutes, want 10", got)
		}
		limits = false
		time.Sleep(limitProbeInterval)
		if err := ask(); err != nil {
			t.Errorf("when it is over: %v", err)
		}
		if err := ask(); err != nil {
			t.Errorf("and then: %v", err)
		}
	})
}

// A probe that meets anything else than an answer leaves the limit as it is.
func TestALimitOutlivesAProbeThatFails(t *testing.T) {
	for _, failure := range []error{ErrInvalidResponse, ErrThirdParty, ErrTimeout, unhealthy(ErrRefused), &internalError{"repo", ErrUnavailable}} {
		synctest.Test(t, func(t *testing.T) {
			inner := &fakeRegistry{answer: func(_ context.Context, n int) error {
				if n == 1 {
					return &RateLimitedError{RetryAfter: time.Hour}
				}
				return failure
			}}
			r := Breaker(inner)
			_, _ = r.Resolve(t.Context(), "repo", "ref")
			time.Sleep(limitProbeInterval)
			for range 50 {
				_, _ = r.Resolve(t.Context(), "repo", "ref")
			}
			if inner.count() != 2 {
				t.Errorf("%v: asked %d times, want one probe", failure, inner.count()-1)
			}
		})
	}
}

func TestABreakerThat500sHaveOpenedRestsAgainAfterEachProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &fakeRegistry{answer: func(_ context.Context, n int) error {
			return &internalError{fmt.Sprint("repo", n%failureThreshold), ErrUnavailable}
		}}
		r := Breaker(inner)
		for range failureThreshold {
			_, _ = r.Resolve(t.Context(), "repo", "ref")
		}
		time.Sleep(2 * minOpen)
		for range 50 {
			_, _ = r.Resolve(t.Context(), "repo", "ref")
		}
		if inner.count() != failureThreshold+1 {
			t.Errorf("asked %d times, want one probe", inner.count()-failureThreshold)
		}
	})
}

// What is limited is what was refused: Docker Hub counts GETs of manifests.
func TestALimitOfOneKindOfQuestionStopsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := digest.FromString("x")
		kinds := map[string]func(Endpoint) error{
			"HEAD of a manifest": func(r Endpoint) error { _, err := r.Resolve(t.Context(), "repo", "ref"); return err },
			"GET of a manifest":  func(r Endpoint) error { _, err := r.Manifest(t.Context(), "repo", "ref"); return err },
			"blob":               func(r Endpoint) error { _, err := r.Blob(t.Context(), "repo", d, 0, -1); return err },
			"referrers":          func(r Endpoint) error { _, err := r.Referrers(t.Context(), "repo", d); return err },
			"tags":               func(r Endpoint) error { _, err := r.Tags(t.Context(), "repo", nil); return err },
			"a referrers tag": func(r Endpoint) error {
				_, err := r.Manifest(t.Context(), "repo", "sha256-"+d.Encoded())
				return err
			},
		}
		for limited := range kinds {
			inner := &fakeRegistry{answer: func(_ context.Context, n int) error {
				if n == 1 {
					return &RateLimitedError{RetryAfter: time.Minute}
				}
				return nil
			}}
			r := Breaker(inner)
			_ = kinds[limited](r)
			for kind, ask := range kinds {
				if err := ask(r); (err != nil) != (kind == limited) {
					t.Errorf("with %s limited, %s: %v", limited, kind, err)
				}
			}
		}
		// Of a referrers tag HEAD and GET are one kind: both are asked for its sake.
		tagged := Breaker(&fakeRegistry{answer: func(context.Context, int) error { return &RateLimitedError{RetryAfter: time.Minute} }})
		_, _ = tagged.Resolve(t.Context(), "repo", "sha256-"+d.Encoded())
		if _, err := tagged.Manifest(t.Context(), "repo", "sha256-"+d.Encoded()+".sig"); err == nil || tagged.(*breaker).next.(*fakeRegistry).count() != 1 {
			t.Errorf("GET of a limited tag: %v", err)
		}
		// A token server's limit is remembered where it was met.
		inner := &fakeRegistry{answer: func(context.Context, int) error { return &RateLimitedError{RetryAfter: time.Minute, elsewhere: true} }}
		r := Breaker(inner)
		for range 3 {
			_, _ = r.Resolve(t.Context(), "repo", "ref")
		}
		if inner.count() != 3 {
			t.Errorf("asked %d times, want 3", inner.count())
		}
	})
}

// Only what says that the host is unwell opens a breaker.
// A probe that is slow shows that the host takes requests. Nobody else waits
// for it.
func TestASlowProbeKeepsNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &fakeRegistry{answer: func(ctx context.Context, n int) error {
			switch {
			case n <= failureThreshold:
				return unhealthy(ErrRefused)
			case n == failureThreshold+1:
				time.Sleep(50 * time.Second)
			}
			return nil
		}}
		r := Breaker(inner)
		ask := func() error { _, err := r.Manifest(t.Context(), "repo", "ref"); return err }
		for range failureThreshold {
			_ = ask()
		}
		time.Sleep(2 * maxOpen)
		probe := make(chan error)
		go func() { probe <- ask() }()
		time.Sleep(time.Second)
		if err := ask(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("beside the probe: %v", err)
		}
		time.Sleep(18 * time.Second)
		for range 3 {
			if err := ask(); err != nil {
				t.Errorf("beside a slow probe: %v", err)
			}
		}
		if err := <-probe; err != nil {
			t.Error(err)
		}
	})
}

func TestWhatOpensABreaker(t *testing.T) {
	for name, c := range map[string]struct {
		err   func(n int) error
		opens bool
	}{
		"an unwell host":                    {func(int) error { return unhealthy(ErrRefused) }, true},
		"500 of one repository":             {func(int) error { return &internalError{"repo", ErrUnavailable} }, false},
		"500 of many repositories":          {func(n int) error { return &internalError{fmt.Sprint("repo", n), ErrUnavailable} }, true},
		"slowness":                          {func(int) error { return ErrTimeout }, false},
		"a broken line":                     {func(int) error { return ErrUnavailable }, false},
		"pages and odd statuses":            {func(int) error { return ErrInvalidResponse }, false},
		"storage":                           {func(int) error { return ErrThirdParty }, false},
		"a refusal":                         {func(int) error { return ErrDenied }, false},
		"an absence":                        {func(int) error { return ErrNotFound }, false},
		"an unwell host that answers again": {func(n int) error { return []error{unhealthy(ErrRefused), ErrNotFound}[n%2] }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := &fakeRegistry{answer: func(_ context.Context, n int) error { return c.err(n) }}
				r := Breaker(inner)
				for range 4 * failureThreshold {
					_, _ = r.Resolve(t.Context(), "repo", "ref")
				}
				if opened := inner.count() < 4*failureThreshold; opened != c.opens {
					t.Errorf("asked %d times of %d", inner.count(), 4*failureThreshold)
				}
			})
		})
	}
}

func TestAProbeWhoseCallerLeavesDoesNotKeepABreakerOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &fakeRegistry{answer: func(ctx context.Context, n int) error {
			switch {
			case n <= failureThreshold:
				return unhealthy(ErrUnavailable)
			case n == failureThreshold+1:
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}
		r := Breaker(inner)
		for range failureThreshold {
			_, _ = r.Resolve(t.Context(), "repo", "ref")
		}
		time.Sleep(2 * minOpen)
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan struct{})
		go func() {
			defer close(left)
			_, _ = r.Resolve(ctx, "repo", "ref")
		}()
		synctest.Wait()
		leave()
		<-left
		if _, err := r.Resolve(t.Context(), "repo", "ref"); err != nil {
			t.Errorf("the next one: %v", err)
		}
	})
}

func TestFallback(t *testing.T) {
	answers := func(err error) *fakeRegistry {
		return &fakeRegistry{answer: func(context.Context, int) error { return err }}
	}
	for name, c := range map[string]struct {
		first, second error
		want          error
	}{
		"the first that answers has the word":         {nil, ErrNotFound, nil},
		"what the first does not have the second may": {ErrNotFound, nil, nil},
		"an unavailable first is passed over":         {ErrUnavailable, nil, nil},
		"the last one's no is not the first one's":    {ErrUnavailable, ErrNotFound, ErrUnavailable},
		"a no of all is a no":                         {ErrNotFound, ErrNameUnknown, ErrNotFound},
		"a no before one that can't say is no no":     {ErrNotFound, ErrUnavailable, ErrUnavailable},
		"a denial of the last one is a denial":        {ErrUnavailable, ErrDenied, ErrDenied},
		"nobody can say":                              {ErrRefused, ErrTimeout, ErrTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Fallback(answers(c.first), answers(c.second)).Resolve(t.Context(), "repo", "ref")
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// slowly answers after a while, unless the caller has left.
func slowly(after time.Duration, err error) func(context.Context, int) error {
	return func(ctx context.Context, _ int) error {
		select {
		case <-time.After(after):
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func TestTheNextEndpointIsAskedBesideASlowOne(t *testing.T) {
	for name, c := range map[string]struct {
		first, second, third func(context.Context, int) error
		want                 error
		took                 time.Duration
		asked                int // of the three
	}{
		"the first answers in time":          {slowly(7*time.Second, nil), nil, nil, nil, 7 * time.Second, 1},
		"the second answers first":           {slowly(time.Hour, nil), slowly(time.Second, nil), nil, nil, 9 * time.Second, 2},
		"the first answers first after all":  {slowly(10*time.Second, nil), slowly(time.Hour, nil), nil, nil, 10 * time.Second, 2},
		"the third answers first":            {slowly(time.Hour, nil), slowly(time.Hour, nil), slowly(time.Second, nil), nil, 17 * time.Second, 3},
		"the second fails, the third serves": {slowly(time.Hour, nil), slowly(time.Second, ErrRefused), slowly(time.Second, nil), nil, 10 * time.Second, 3},
		"a no of the others is none":         {slowly(50*time.Second, nil), slowly(0, ErrNotFound), slowly(0, ErrNotFound), nil, 50 * time.Second, 3},
		"none of them serves":                {slowly(time.Minute, ErrTimeout), slowly(time.Second, ErrNotFound), slowly(time.Second, ErrNotFound), ErrTimeout, time.Minute, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := []*fakeRegistry{{answer: c.first}, {answer: c.second}, {answer: c.third}}
				began := time.Now()
				content, err := Fallback(all[0], all[1], all[2]).Manifest(t.Context(), "repo", "ref")
				if !errors.Is(err, c.want) || time.Since(began) != c.took {
					t.Errorf("%v after %s", err, time.Since(began))
				}
				if err == nil {
					content.Body.Close()
				}
				synctest.Wait()
				asked := 0
				for _, r := range all {
					asked += r.count()
				}
				if asked != c.asked {
					t.Errorf("asked %d of them, want %d", asked, c.asked)
				}
			})
		})
	}
}

// What an endpoint answers although another one has served is closed.
func TestTheSlowerAnswerIsClosedBeforeItsBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := &fakeRegistry{answer: func(context.Context, int) error { time.Sleep(time.Minute); return nil }} // heeds nobody
		c, err := Fallback(late, &fakeRegistry{}).Blob(t.Context(), "repo", digest.FromString("x"), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Body.Close()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if late.closed != 1 {
			t.Error("the slower answer is open")
		}
	})
}

// An endpoint that hangs delays three requests, and then none for a minute.
func TestAnEndpointThatHangsIsAskedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := &fakeRegistry{answer: slowly(time.Hour, nil)}
		r := Fallback(hangs, &fakeRegistry{})
		took := func() time.Duration {
			began := time.Now()
			if _, err := r.Resolve(t.Context(), "repo", "ref"); err != nil {
				t.Error(err)
			}
			return time.Since(began)
		}
		for n := range 6 {
			if got := took(); (n < laggingAfter) != (got == besideAfter) {
				t.Errorf("request %d took %s", n+1, got)
			}
		}
		time.Sleep(laggingTime)
		hangs.answer = nil
		for range 3 {
			if got := took(); got != 0 {
				t.Errorf("a minute later: %s", got)
			}
		}
		if hangs.count() != laggingAfter+3 {
			t.Errorf("it was asked %d times", hangs.count())
		}
	})
}

// An endpoint that can't be reached opens its breaker, although the other one
// answers before all tries have failed.
func TestAnEndpointThatCannotBeReachedIsNoticedBesideAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := &fakeRegistry{answer: slowly(5*time.Second, unhealthy(ErrTimeout))}
		r := Fallback(Breaker(Retry(silent)), Breaker(Retry(&fakeRegistry{})))
		for range failureThreshold {
			time.Sleep(laggingTime)
			if _, err := r.Resolve(t.Context(), "repo", "ref"); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		began := time.Now()
		if _, err := r.Resolve(t.Context(), "repo", "ref"); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

func TestQuotaIsForgottenAfterItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q Quota
		if q.Share() != 1 {
			t.Error("a limit that nobody announced is known")
		}
		q.Observe(200, 50, time.Hour)
		if q.Share() != 0.25 {
			t.Errorf("the share is %v", q.Share())
		}
		q.Observe(0, 0, 0) // an answer that says nothing
		if q.Share() != 0.25 {
			t.Errorf("the share is %v", q.Share())
		}
		time.Sleep(2 * time.Hour)
		if q.Share() != 1 {
			t.Errorf("after its window the share is %v", q.Share())
		}
	})
}

// Endpoints that are asked one by one share what the upstream may be asked at
// once.
func TestRegistriesShareSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		waits := func() *fakeRegistry {
			return &fakeRegistry{answer: func(context.Context, int) error { <-release; return nil }}
		}
		slots := NewSlots(4)
		first, second := waits(), waits()
		all := []Registry{slots.Limit(first), slots.Limit(second), slots.Limit(Fallback(first, second))}
		for n := range 9 {
			go func() { _, _ = all[n%3].Resolve(context.Background(), "repo", "ref") }()
		}
		synctest.Wait()
		if got := first.count() + second.count(); got != 4 {
			t.Errorf("%d requests at once, want 4", got)
		}
		close(release)
		synctest.Wait()
		if got := first.count() + second.count(); got != 9 {
			t.Errorf("%d requests in all, want 9", got)
		}
	})
}
