package pull_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// TestANoIsKept: the upstream has said that a tag does not exist; then it is
// asked again as the case says, by another process.
func TestANoIsKept(t *testing.T) {
	const other = "other" // a repository of which nothing is kept
	for name, c := range map[string]struct {
		repo    string
		suffix  string // of the image's own tag; "" is another tag of the repository
		later   time.Duration
		fails   error
		offline bool
		want    error
		stale   bool
	}{
		"it can't be reached":                             {fails: upstream.ErrRefused, want: upstream.ErrNotFound, stale: true},
		"it can't be reached, an hour later":              {later: time.Hour, fails: upstream.ErrRefused, want: upstream.ErrRefused},
		"it limits requests":                              {fails: &upstream.RateLimitedError{RetryAfter: time.Hour}, want: &upstream.RateLimitedError{RetryAfter: time.Hour}},
		"it refuses":                                      {fails: upstream.ErrDenied, want: upstream.ErrDenied},
		"it is slow":                                      {fails: upstream.ErrTimeout, want: upstream.ErrTimeout},
		"it answers with a page":                          {fails: upstream.ErrInvalidResponse, want: upstream.ErrInvalidResponse},
		"it could not ask its own":                        {fails: upstream.ErrStale, want: upstream.ErrNotFound, stale: true},
		"nothing is kept of the repository":               {repo: other, fails: upstream.ErrRefused, want: upstream.ErrRefused},
		"the image has no attestation":                    {suffix: ".att", fails: upstream.ErrRefused, want: upstream.ErrNotFound, stale: true},
		"the image has no attestation, a day later":       {suffix: ".att", later: 24 * time.Hour, fails: upstream.ErrRefused, want: upstream.ErrNotFound, stale: true},
		"the image has no attestation, and it refuses":    {suffix: ".att", fails: upstream.ErrDenied, want: upstream.ErrDenied},
		"the image has no attestation, offline":           {suffix: ".att", later: 24 * time.Hour, offline: true, want: upstream.ErrNotFound, stale: true},
		"the image has nothing of a suffix that is other": {suffix: ".xyz", later: time.Hour, offline: true, want: pull.ErrOfflineUnknown},
		"offline": {offline: true, want: pull.ErrOffline},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				image, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
				m := mirrortest.New(t, o, nil)
				m.PullImage(t, mirrortest.App, "1")
				repo, tag := mirrortest.App, "1.x"
				if c.repo != "" {
					repo.Name = c.repo
				}
				if c.suffix != "" {
					tag = referrers.TagOf(image.Digest) + c.suffix
				}
				if _, err := m.Manifest(t.Context(), repo, tag); !errors.Is(err, upstream.ErrNotFound) {
					t.Fatal(err)
				}
				time.Sleep(time.Minute + c.later) // beyond negative_ttl
				if c.fails != nil {
					o.Fail("*", c.fails)
				}
				again := mirrortest.New(t, o, func(opts *mirror.Options) {
					opts.Blobs, opts.Records, opts.Rules.Offline = m.Blobs, m.Records, c.offline
				})
				_, err := again.Manifest(t.Context(), repo, tag)
				var stale *pull.StaleError
				var limited *upstream.RateLimitedError
				if isLimit := errors.As(c.want, &limited); isLimit && !errors.As(err, &limited) || !isLimit && !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
				if errors.As(err, &stale) != c.stale {
					t.Errorf("stale %v: %v", !c.stale, err)
				}
				// The upstream is back, and has it by now.
				o.ClearFailures()
				o.Image(repo.Name, tag, mirrortest.Bytes(2, 50))
				time.Sleep(time.Minute)
				back := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Blobs, opts.Records = m.Blobs, m.Records })
				if got, err := back.Manifest(t.Context(), repo, tag); err != nil || got.Stale {
					t.Errorf("when it is back: stale %v, %v", got.Stale, err)
				}
			})
		})
	}
}
