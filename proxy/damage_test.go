package proxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// TestDamageIsHealedWhateverIsAskedFor has eight clients at once ask for a kept
// blob in which two bits turned over: for all of it, for ranges, for several.
// They see nothing of it, and the upstream sends the blob once at most.
func TestDamageIsHealedWhateverIsAskedFor(t *testing.T) {
	t.Parallel()
	const size = 9<<20 + 77
	layer := upstreamtest.Bytes(1, size)
	for _, asked := range []string{
		"", "bytes=0-", "bytes=5000000-", "bytes=5242000-5300000", "bytes=-100000", "bytes=0-99,5242000-5300000,9437200-9437230",
		"bytes=9437200-9437230,0-99,5242000-5300000",
	} {
		t.Run(asked, func(t *testing.T) {
			t.Parallel()
			fake := upstreamtest.New(t)
			_, m := fake.AddImage("app", "1", layer)
			s := setup{dir: t.TempDir()}
			w := watch(&s)
			first := newMirror(t, fake, s)
			path := "/v2/app/blobs/" + m.Layers[0].Digest.String()
			for _, path := range []string{"/v2/app/manifests/1", path} {
				if a := first.get(path); a.status != http.StatusOK {
					t.Fatalf("at first: %d", a.status)
				}
			}
			<-w.landed
			first.stop()
			hex := m.Layers[0].Digest.Encoded()
			for _, off := range []int64{5<<20 + 9, size - 3} {
				if err := flipBit(filepath.Join(s.dir, "blobs", "sha256", hex[:2], hex), off); err != nil {
					t.Fatal(err)
				}
			}
			before := fake.BlobBytes()
			mir := newMirror(t, fake, s)
			header := http.Header{}
			if asked != "" {
				header.Set("Range", asked)
			}
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() {
					if err := rightBytes(mir.do(http.MethodGet, path, header), layer); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			<-w.landed
			if again := fake.BlobBytes() - before; again <= 0 || again > size {
				t.Errorf("%d bytes were fetched again, of %d", again, size)
			}
			fake.Stop()
			if err := rightBytes(mir.do(http.MethodGet, path, header), layer); err != nil {
				t.Errorf("afterwards, without the upstream: %v", err)
			}
		})
	}
}

// rightBytes says what is wrong with an answer with content, or parts of it.
func rightBytes(a errorResponse, content []byte) error {
	if a.broken != nil {
		return fmt.Errorf("%d, then %w", a.status, a.broken)
	}
	part := func(where string, b []byte) error {
		var first, last, size int
		if _, err := fmt.Sscanf(where, "bytes %d-%d/%d", &first, &last, &size); err != nil {
			return err
		}
		if size != len(content) || !bytes.Equal(b, content[first:last+1]) {
			return fmt.Errorf("wrong bytes as %q", where)
		}
		return nil
	}
	mediaType, params, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	switch {
	case err != nil:
		return err
	case a.status == http.StatusOK && bytes.Equal(a.body, content):
		return nil
	case a.status != http.StatusPartialContent:
		return fmt.Errorf("%d with %d bytes", a.status, len(a.body))
	case mediaType != "multipart/byteranges":
		return part(a.header.Get("Content-Range"), a.body)
	}
	for parts := multipart.NewReader(bytes.NewReader(a.body), params["boundary"]); ; {
		p, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := io.ReadAll(p)
		if err != nil {
			return err
		}
		if err := part(p.Header.Get("Content-Range"), b); err != nil {
			return err
		}
	}
}
