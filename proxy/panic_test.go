package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/proxy/pull"
)

// half is a blob of which half is sent, and then the code panics.
type half struct{ pull.Blob }

func (half) Size() int64           { return -1 } // nothing but the end of the answer tells how long it is
func (half) Outcome() pull.Outcome { return pull.Hit }
func (half) Close() error          { return nil }
func (half) Digest() digest.Digest { return sha256OfNothing }

func (half) WriteRange(_ context.Context, w io.Writer, _, _ int64) (int64, error) {
	if _, err := io.WriteString(w, "half "); err != nil {
		return 0, err
	}
	panic("broken")
}

// TestAPanicCostsOneAnswer (13.1): it is an internal error, or the answer breaks
// off where some of it has been sent, and the next one is answered.
func TestAPanicCostsOneAnswer(t *testing.T) {
	var told atomic.Int64
	panics.Handle(func(string, any, []byte) { told.Add(1) })
	defer panics.Handle(nil)
	f := newFace(t, script{
		manifest: func(_ pull.Repository, tag string) (pull.Manifest, error) {
			if tag == "broken" {
				panic("a secret")
			}
			return pull.Manifest{Bytes: []byte("{}")}, nil
		},
		blob: func(pull.Repository, digest.Digest) (pull.Blob, error) { return half{}, nil },
	})
	got := f.do(http.MethodGet, "/v2/app/manifests/broken")
	if got.status != http.StatusInternalServerError || got.code() != codeUnknown {
		t.Errorf("%d %s", got.status, got.body)
	}
	resp, err := f.client.Get(f.server.URL + "/v2/app/blobs/" + sha256OfNothing)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q of a blob, and then %v", body, err)
	}
	if got := f.do(http.MethodGet, "/v2/app/manifests/1"); got.status != http.StatusOK {
		t.Errorf("the next one: %d %s", got.status, got.body)
	}
	if told.Load() != 2 {
		t.Errorf("%d panics were told of", told.Load())
	}
}
