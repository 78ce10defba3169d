package upstream

import (
	"bytes"
	"context"
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
type panicking struct{ Endpoint }

func (panicking) Resolve(context.Context, string, string) (Descriptor, error) { panic("broken") }
func (panicking) Manifest(context.Context, string, string) (Content, error)   { panic("broken") }

func TestAPanicOfOneEndpointIsItsFailure(t *testing.T) {
	n := caught(t)
	r := Fallback(panicking{}, &told{body: "sound"})
	if c, err := r.Manifest(t.Context(), "app", "1"); err != nil {
		t.Errorf("Manifest: %v", err)
	} else {
		c.Body.Close()
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
