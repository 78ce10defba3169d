package pull_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// Several ranges that are all of a blob are no way around the proof: the last
// bytes are held back from them too.
func TestAllOfABlobInPartsIsProvenLikeTheWhole(t *testing.T) {
	const size, heldBack = 64 << 10, 4 << 10
	content := mirrortest.Bytes(1, size)
	first, second := pull.Span{To: size / 2}, pull.Span{From: size / 2, To: size}
	for name, c := range map[string]struct {
		parts []pull.Span
		lies  bool
		out   int // before the last bytes are in: nothing that has not been hashed
	}{
		"in order":                          {[]pull.Span{first, second}, false, size - heldBack},
		"the other way round":               {[]pull.Span{second, first}, false, 0},
		"a wrong byte, in order":            {[]pull.Span{first, second}, true, size - heldBack},
		"a wrong byte, the other way round": {[]pull.Span{second, first}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				layer := o.Put("app", "layer", content)
				last := make(chan struct{})
				o.Bodies = func(_ string, _ pull.Digest, from int64, body []byte) io.ReadCloser {
					body = slices.Clone(body)
					if at := int64(1000); c.lies && from <= at {
						body[at-from] ^= 1
					}
					most := max(0, len(body)-100)
					return io.NopCloser(io.MultiReader(bytes.NewReader(body[:most]), waiting{last}, bytes.NewReader(body[most:])))
				}
				m := mirrortest.New(t, o, nil)
				b, err := m.Blob(t.Context(), mirrortest.App, layer.Digest, pull.Want{Parts: func(int64) []pull.Span { return c.parts }})
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				var got bytes.Buffer
				done := make(chan error, 1)
				go func() {
					for _, part := range c.parts {
						if _, err := b.WriteRange(context.Background(), &got, part.From, part.Len()); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
				synctest.Wait()
				if got.Len() != c.out {
					t.Errorf("%d bytes are out before the last ones are in, want %d", got.Len(), c.out)
				}
				close(last)
				if err := <-done; (err != nil) != c.lies || (got.Len() == size) == c.lies {
					t.Errorf("the client got %d bytes of %d: %v", got.Len(), size, err)
				}
			})
		})
	}
}

// A client of ranges that has joined the download of another repository goes on
// with its own ranges when that fails, and with nothing else.
func TestALookStaysALookWhenTheDownloadThatItJoinedFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := mirrortest.Bytes(1, 8<<20)
		o := mirrortest.NewOrigin()
		layer := o.Put("app", "layer", content)
		o.Put("second", "layer", content)
		fails := make(chan struct{})
		o.Bodies = func(repo string, _ pull.Digest, from int64, body []byte) io.ReadCloser {
			if repo == "app" && from == 0 {
				return io.NopCloser(io.MultiReader(bytes.NewReader(body[:1<<20]), waiting{fails}, mirrortest.Failing{Err: upstream.ErrInvalidResponse}))
			}
			return io.NopCloser(bytes.NewReader(body))
		}
		d := mirrortest.Short(layer.Digest.String())
		release := o.Hold("GET blob app " + d + " 5242880+1000")
		defer release()
		m := mirrortest.New(t, o, nil)
		whole, err := m.Blob(t.Context(), mirrortest.App, layer.Digest, pull.Want{})
		if err != nil {
			t.Fatal(err)
		}
		defer whole.Close()
		part := pull.Span{From: 5 << 20, To: 5<<20 + 1000}
		done := make(chan error, 1)
		go func() {
			got, err := readPart(t, m, pull.Repository{Upstream: "hub", Name: "second"}, layer.Digest, part)
			if err == nil && !bytes.Equal(got, content[part.From:part.To]) {
				err = errors.New("other bytes")
			}
			done <- err
		}()
		synctest.Wait()
		close(fails)
		if err := <-done; err != nil {
			t.Error(err)
		}
		mirrortest.Wait()
		asked := slices.DeleteFunc(o.Transcript(), func(line string) bool { return !strings.HasPrefix(line, "GET blob second") })
		if want := []string{"GET blob second " + d + " 5242880+1000"}; !slices.Equal(asked, want) {
			t.Errorf("for the second repository the upstream was asked %q, want %q", asked, want)
		}
	})
}

// waiting is a body that ends once its channel is closed.
type waiting struct{ until chan struct{} }

func (w waiting) Read([]byte) (int, error) {
	<-w.until
	return 0, io.EOF
}
