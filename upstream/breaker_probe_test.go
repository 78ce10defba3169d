package upstream

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What is asked about one subject are several requests at once, and one of them
// finds out whether the upstream is back.
func TestARequestForReferrersWaitsForAProbe(t *testing.T) {
	tag := "sha256-" + strings.Repeat("0", 64)
	asks := map[string]func(r Endpoint) error{
		"the API": func(r Endpoint) error { _, err := r.Referrers(context.Background(), "app", subjectOf(0)); return err },
		"the tag": func(r Endpoint) error { _, err := r.Resolve(context.Background(), "app", tag); return err },
		"GET of cosign's tag": func(r Endpoint) error {
			_, err := r.Manifest(context.Background(), "app", tag+".sig")
			return err
		},
		"an image": func(r Endpoint) error { _, err := r.Resolve(context.Background(), "app", "1"); return err },
	}
	for name, c := range map[string]struct {
		after time.Duration
		probe error
		want  error // of what waits
		waits time.Duration
	}{
		"which is answered":     {after: time.Second, waits: time.Second},
		"which fails":           {after: time.Second, probe: unhealthy(ErrRefused), want: ErrUnavailable, waits: time.Second},
		"which takes long":      {after: time.Minute, want: ErrProbed, waits: probeWait},
		"whose caller has left": {after: time.Second, probe: context.Canceled, waits: time.Second},
	} {
		for of, ask := range asks {
			t.Run(of+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, leave := context.WithCancel(t.Context())
					inner := &fakeRegistry{answer: func(_ context.Context, n int) error {
						switch {
						case n <= failureThreshold:
							return unhealthy(ErrRefused)
						case n == failureThreshold+1:
							time.Sleep(c.after)
							if errors.Is(c.probe, context.Canceled) {
								leave()
							}
							return c.probe
						}
						return nil
					}}
					r := NewSlots(8).LimitEndpoint(Breaker(inner))
					for range failureThreshold {
						_, _ = r.Resolve(t.Context(), "app", "1")
					}
					time.Sleep(2 * minOpen)
					probe := make(chan struct{})
					go func() {
						defer close(probe)
						_, _ = r.Resolve(ctx, "app", "2")
					}()
					synctest.Wait()
					began := time.Now()
					err := ask(r)
					took, want, waits := time.Since(began), c.want, c.waits
					if of == "an image" {
						want, waits = ErrProbed, 0
					}
					if !errors.Is(err, want) || want == nil && err != nil || took != waits {
						t.Errorf("%v after %s, want %v after %s", err, took, want, waits)
					}
					<-probe
					leave()
				})
			})
		}
	}
}

func TestOneOfThoseThatWaitForAProbeIsTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		inner := &fakeRegistry{answer: func(ctx context.Context, n int) error {
			switch {
			case n <= failureThreshold:
				return unhealthy(ErrRefused)
			case n == failureThreshold+1:
				<-ctx.Done()
				return ctx.Err()
			case n == failureThreshold+2:
				time.Sleep(time.Second)
			}
			return nil
		}}
		a := asking{t, Breaker(inner)}
		for range failureThreshold {
			_, _ = a.r.Resolve(t.Context(), "app", "1")
		}
		time.Sleep(2 * minOpen)
		go func() { _, _ = a.r.Referrers(ctx, "app", subjectOf(0)) }()
		synctest.Wait()
		var all []<-chan error
		for n := range 5 {
			all = append(all, a.later("app", n))
		}
		leave()
		for _, one := range all {
			if err := <-one; err != nil {
				t.Error(err)
			}
		}
		if got := inner.count(); got != failureThreshold+6 {
			t.Errorf("%d requests", got)
		}
	})
}
