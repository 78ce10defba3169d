package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/limits/panics"
)

// caught counts panics that are caught, until the test ends.
func caught(t *testing.T) *atomic.Int64 {
	t.Helper()
	var n atomic.Int64
	panics.Handle(func(string, any, []byte) { n.Add(1) })
	t.Cleanup(func() { panics.Handle(nil) })
	return &n
}

// panicking is an endpoint whose code panics.
type panicking struct{ Registry }

func (panicking) Resolve(context.Context, string, string) (Descriptor, error) { panic("broken") }
func (panicking) Referrers(context.Context, string, Digest) (ReferrersList, error) {
	panic("broken")
}

func TestAPanicOfOneEndpointIsItsFailure(t *testing.T) {
	n := caught(t)
	r := Fallback(panicking{}, &told{list: ReferrersList{Manifests: []Descriptor{{Digest: "sha256:a"}}}})
	if list, err := r.Referrers(t.Context(), "app", "sha256:s"); len(list.Manifests) != 1 || !errors.Is(err, ErrUnavailable) {
		t.Errorf("Referrers: %+v, %v", list, err)
	}
	if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
		t.Errorf("Resolve: %v", err)
	}
	if n.Load() != 2 {
		t.Errorf("%d panics were told of, want 2", n.Load())
	}
}

func TestAPanicOfASecondConnectionLeavesTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := caught(t)
		s := &silentBlob{content: bytes.Repeat([]byte("content "), 100), answers: []silentAnswer{{after: 300, silence: 40 * time.Second}, {panics: true}}, began: time.Now()}
		content, err := SecondConnection(s).Blob(t.Context(), "app", digest.FromString("x"), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer content.Body.Close()
		if got, err := io.ReadAll(content.Body); err != nil || !bytes.Equal(got, s.content) {
			t.Errorf("%d bytes, or others, %v", len(got), err)
		}
		if n := told.Load(); n != 1 {
			t.Errorf("%d panics were told of, want 1", n)
		}
	})
}
