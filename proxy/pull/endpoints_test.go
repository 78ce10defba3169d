package pull_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// One of several endpoints can't be asked, and the other says that there is
// nothing. Nothing that is cached is forgotten, and nothing is called absent.
func TestWhatOneEndpointCannotTellOutweighsAnothersAbsence(t *testing.T) {
	for name, cannotTell := range map[string]error{
		"refuses the connection": upstream.ErrRefused, "times out": upstream.ErrTimeout, "answers 503": upstream.ErrUnavailable,
		"is limited": &upstream.RateLimitedError{RetryAfter: time.Minute}, "sends what is no answer": upstream.ErrInvalidResponse,
		"refuses such requests": &upstream.RefusedError{Status: 400}, "does not support that": upstream.ErrUnsupported,
	} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, first %v", name, first), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					failing, empty := mirrortest.NewOrigin(), mirrortest.NewOrigin()
					image, layer := failing.Image("app", "1", mirrortest.Bytes(1, 1000))
					failing.Put("app", "application/json", []byte("{}"), "tags")
					endpoints := []*mirrortest.Origin{failing, empty}
					if !first {
						endpoints = []*mirrortest.Origin{empty, failing}
					}
					m := mirrortest.New(t, failing, func(opts *mirror.Options) {
						opts.Upstreams = []pull.Upstream{mirrortest.Endpoints(endpoints...)}
					})
					m.PullImage(t, mirrortest.App, "1")
					if _, err := m.Tags(t.Context(), mirrortest.App, nil); err != nil {
						t.Fatal(err)
					}
					mirrortest.Wait()
					time.Sleep(time.Hour)
					failing.Fail("*", cannotTell)
					for range 3 {
						if got, err := m.Manifest(t.Context(), mirrortest.App, "1"); err == nil && got.Descriptor.Digest != image.Digest || errors.Is(err, upstream.ErrNotFound) {
							t.Errorf("the tag: %+v, %v", got.Descriptor, err)
						}
						time.Sleep(time.Hour)
					}
					if _, known := m.Ledger.Tag(mirrortest.App, "1"); !known {
						t.Error("the tag is forgotten")
					}
					if list, err := m.Tags(t.Context(), mirrortest.App, nil); err == nil && len(list.Tags) == 0 || errors.Is(err, upstream.ErrNotFound) {
						t.Errorf("the list of tags: %v, %v", list.Tags, err)
					}
					if _, known := m.Ledger.TagList(mirrortest.App); !known {
						t.Error("the list of tags is forgotten")
					}
					unseen := pull.Digest("sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")
					for what, err := range map[string]error{
						"another tag":               second(m.Manifest(t.Context(), mirrortest.App, "2")),
						"another manifest":          second(m.Manifest(t.Context(), mirrortest.App, unseen.String())),
						"another blob":              second(m.Fetch(mirrortest.App, unseen)),
						"the HEAD of another blob":  third(m.ResolveBlob(t.Context(), mirrortest.App, unseen)),
						"another repository's blob": second(m.Fetch(pull.Repository{Upstream: "hub", Name: "other"}, layer.Digest)),
						"another repository's tags": second(m.Tags(t.Context(), pull.Repository{Upstream: "hub", Name: "other"}, nil)),
					} {
						if err == nil || errors.Is(err, upstream.ErrNotFound) {
							t.Errorf("%s: %v", what, err)
						}
					}
				})
			})
		}
	}
}

func second[T any](_ T, err error) error { return err }

func third[T, U any](_ T, _ U, err error) error { return err }
