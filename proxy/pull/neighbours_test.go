package pull_test

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// dripping is a body of which a byte comes every five seconds.
type dripping struct{ io.Reader }

func (d dripping) Read(b []byte) (int, error) {
	time.Sleep(5 * time.Second)
	return d.Reader.Read(b[:1])
}

// A client that asks a slow upstream for more than there are places, and leaves,
// takes none from another upstream: what that has is downloaded, and kept.
func TestASlowUpstreamTakesNoPlaceFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, sound := mirrortest.NewOrigin(), mirrortest.NewOrigin()
		slow.Bodies = func(_ string, _ pull.Digest, _ int64, body []byte) io.ReadCloser {
			return io.NopCloser(dripping{bytes.NewReader(body)})
		}
		other := pull.Repository{Upstream: "sound", Name: "app"}
		m := mirrortest.New(t, sound, func(opts *mirror.Options) {
			opts.MaxFlights = 64
			opts.Upstreams = []pull.Upstream{
				{Name: "hub", Registry: upstream.Limit(slow, 32)}, {Name: other.Upstream, Registry: upstream.Limit(sound, 32)},
			}
		})
		ctx, leave := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for i := range 100 {
			blob := slow.Put("app", "layer", mirrortest.Bytes(byte(i), 10<<10))
			clients.Go(func() { _ = m.Read(ctx, mirrortest.App, blob.Digest) })
		}
		time.Sleep(time.Second)
		leave()
		clients.Wait()
		for i := range 30 {
			content := mirrortest.Bytes(byte(200+i), 20<<10)
			blob := sound.Put("app", "layer", content)
			began := time.Now()
			got, err := m.Fetch(other, blob.Digest)
			if took := time.Since(began); err != nil || !bytes.Equal(got, content) || took > time.Second {
				t.Fatalf("blob %d of the sound upstream: %d bytes, %v, after %s", i, len(got), err, took)
			}
			synctest.Wait()
			if !m.HasContent(blob.Digest) {
				t.Errorf("blob %d of the sound upstream is not kept", i)
			}
		}
	})
}

// atPace takes what is written to it at 4 KiB/s, until it is released.
type atPace struct{ released <-chan struct{} }

func (p atPace) Write(b []byte) (int, error) {
	select {
	case <-p.released:
	case <-time.After(time.Second * time.Duration(len(b)) / 4096):
	}
	return len(b), nil
}

// Slow readers of far ranges, and of whole blobs, hold no place at an upstream at
// their pace, whether there is room on the disk or not.
func TestSlowReadersLeavePlacesAtTheirUpstream(t *testing.T) {
	const size = 32 << 20
	for where, disk := range map[string]*memory.Cache{"with room": memory.New(), "without room": memory.NewBounded(0)} {
		for what, far := range map[string]bool{"far ranges of one blob": true, "whole blobs": false} {
			t.Run(what+" "+where, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := mirrortest.NewOrigin()
					m := mirrortest.New(t, o, func(opts *mirror.Options) {
						opts.Blobs, opts.Records = disk.Blobs(), disk.Records()
						opts.Upstreams = []pull.Upstream{{Name: "hub", Registry: upstream.Limit(o, 8)}}
					})
					large := o.Put("app", "layer", mirrortest.Bytes(1, size))
					released := make(chan struct{})
					var readers sync.WaitGroup
					for i := range 9 {
						blob, from, n := large, int64(i+1)*3<<20, int64(2<<20)
						if !far {
							blob, from, n = o.Put("app", "layer", mirrortest.Bytes(byte(10+i), 10<<20)), 0, -1
						}
						readers.Go(func() {
							want := pull.Want{}
							if far {
								want.Parts = func(int64) []pull.Span { return []pull.Span{{From: from, To: from + n}} }
							}
							b, err := m.Blob(t.Context(), mirrortest.App, blob.Digest, want)
							if err != nil {
								t.Errorf("a slow reader: %v", err)
								return
							}
							defer b.Close()
							if wrote, err := b.WriteRange(t.Context(), atPace{released}, from, n); err != nil || far && wrote != n || !far && wrote != 10<<20 {
								t.Errorf("a slow reader got %d bytes, %v", wrote, err)
							}
						})
					}
					time.Sleep(10 * time.Second)
					for i := range 5 {
						content := mirrortest.Bytes(byte(100+i), 1<<20)
						blob := o.Put("app", "layer", content)
						began := time.Now()
						got, err := m.Fetch(mirrortest.App, blob.Digest)
						if took := time.Since(began); err != nil || !bytes.Equal(got, content) || took > time.Second {
							t.Errorf("another blob: %d bytes, %v, after %s", len(got), err, took)
						}
					}
					close(released)
					readers.Wait()
				})
			})
		}
	}
}
