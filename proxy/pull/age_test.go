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

// Decision 9: an empty answer, and so the absence of a tag that carries referrers,
// is never older than a list may be, whichever of the two times is the longer.
func TestATagThatCarriesReferrersIsNotAbsentForLongerThanAListIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, func(o *mirror.Options) { o.Rules.ReferrersTTL, o.Rules.NegativeTTL = time.Second, time.Minute })
		tag := referrers.TagOf(subject.Digest) + ".sig"
		absent := func() time.Time {
			t.Helper()
			_, err := m.Manifest(t.Context(), mirrortest.App, tag)
			var dated *pull.DatedError
			if !errors.Is(err, upstream.ErrNotFound) || !errors.As(err, &dated) {
				t.Fatal(err)
			}
			return dated.At
		}
		first := absent()
		time.Sleep(900 * time.Millisecond)
		if at := absent(); !at.Equal(first) {
			t.Errorf("said at %s, want at %s", at, first)
		}
		time.Sleep(200 * time.Millisecond)
		if at := absent(); !at.Equal(time.Now()) {
			t.Errorf("said %s ago, and may be 1 s old", time.Since(at))
		}
	})
}
