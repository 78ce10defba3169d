package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fetch reads a whole blob as a client would.
func (m mirror) fetch(repo Repository, d Digest) ([]byte, error) {
	b, err := m.Blob(context.Background(), repo, d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	var got bytes.Buffer
	_, err = b.WriteRange(context.Background(), &got, 0, -1)
	return got.Bytes(), err
}

func (m mirror) keeps(d Digest) bool {
	_, err := m.opts.Blobs.Stat(context.Background(), d)
	return err == nil
}

// cutAfter breaks a body off after n bytes.
func cutAfter(body []byte, n int, err error) io.ReadCloser {
	return io.NopCloser(io.MultiReader(bytes.NewReader(body[:min(n, len(body))]), failing{err}))
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestFiftyClientsOfOneColdBlobAreOneDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		layer := o.put("app", "layer", bytesOf(1, 1<<20))
		m := newMirror(t, o, nil)
		release := o.hold("GET blob app " + short(layer.Digest.String()))
		var clients sync.WaitGroup
		for range 50 {
			clients.Go(func() {
				got, err := m.fetch(hubApp, layer.Digest)
				if err != nil || !bytes.Equal(got, bytesOf(1, 1<<20)) {
					t.Errorf("a client got %d bytes and error %v", len(got), err)
				}
			})
		}
		synctest.Wait()
		release()
		clients.Wait()
		synctest.Wait()
		wantTranscript(t, o, "GET blob app "+short(layer.Digest.String()))
		if _, err := m.fetch(hubApp, layer.Digest); err != nil {
			t.Fatal(err)
		}
		wantTranscript(t, o)
	})
}

func TestFirstByteGoesOutBeforeTheLastIsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		content := bytesOf(2, 256<<10)
		layer := o.put("app", "layer", content)
		more := make(chan struct{})
		o.bodies = func(_ string, _ Digest, _ int64, body []byte) io.ReadCloser {
			return io.NopCloser(io.MultiReader(bytes.NewReader(body[:128<<10]), gated{more, bytes.NewReader(body[128<<10:])}))
		}
		m := newMirror(t, o, nil)
		b, err := m.Blob(t.Context(), hubApp, layer.Digest)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		var got bytes.Buffer
		done := make(chan error, 1)
		go func() {
			_, err := b.WriteRange(context.Background(), &got, 0, -1)
			done <- err
		}()
		synctest.Wait()
		if got.Len() == 0 {
			t.Error("nothing arrived while the upstream still had bytes to send")
		}
		close(more)
		if err := <-done; err != nil || !bytes.Equal(got.Bytes(), content) {
			t.Errorf("got %d bytes, error %v", got.Len(), err)
		}
	})
}

// gated reads only once its gate is open.
type gated struct {
	open <-chan struct{}
	r    io.Reader
}

func (g gated) Read(b []byte) (int, error) {
	<-g.open
	return g.r.Read(b)
}

func TestAClientThatLeavesDoesNotStopTheDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		layer := o.put("app", "layer", bytesOf(3, 64<<10))
		m := newMirror(t, o, nil)
		release := o.hold("GET blob app " + short(layer.Digest.String()))
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			b, err := m.Blob(ctx, hubApp, layer.Digest)
			if err == nil {
				_, err = b.WriteRange(ctx, io.Discard, 0, -1)
				b.Close()
			}
			left <- err
		}()
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the client that left got %v", err)
		}
		release()
		synctest.Wait()
		if !m.keeps(layer.Digest) {
			t.Error("the blob is not kept")
		}
	})
}

func TestDownloads(t *testing.T) {
	const size = 300 << 10
	content := bytesOf(4, size)
	cut := fmt.Errorf("%w: connection reset", upstream.ErrUnavailable)
	corrupt := bytes.Clone(content)
	corrupt[size/2] ^= 1
	for name, c := range map[string]struct {
		script func(o *origin)
		err    error // what the first client sees; nil means the whole blob
		asked  int   // requests for the blob
	}{
		"one that is cut is taken up at its offset": {
			script: func(o *origin) {
				o.bodies = func(_ string, _ Digest, from int64, body []byte) io.ReadCloser {
					if from == 0 {
						return cutAfter(body, 100<<10, cut)
					}
					return io.NopCloser(bytes.NewReader(body))
				}
			},
			asked: 2,
		},
		"one that is cut goes on where the upstream knows no Range": {
			script: func(o *origin) {
				o.noRange = true
				first := true
				o.bodies = func(_ string, _ Digest, _ int64, body []byte) io.ReadCloser {
					if first {
						first = false
						return cutAfter(body, 100<<10, cut)
					}
					return io.NopCloser(bytes.NewReader(body))
				}
			},
			asked: 2,
		},
		"one that is silent in the middle is taken up": {
			script: func(o *origin) {
				o.bodies = func(_ string, _ Digest, from int64, body []byte) io.ReadCloser {
					if from == 0 {
						return cutAfter(body, 10<<10, upstream.ErrTimeout)
					}
					return io.NopCloser(bytes.NewReader(body))
				}
			},
			asked: 2,
		},
		"one that never gets further fails in the end": {
			script: func(o *origin) {
				o.bodies = func(_ string, _ Digest, from int64, body []byte) io.ReadCloser {
					if from == 0 {
						return cutAfter(body, 100<<10, cut)
					}
					return cutAfter(body, 0, cut)
				}
			},
			err:   upstream.ErrUnavailable,
			asked: 1 + maxResumes,
		},
		"one with a wrong byte is refused": {
			script: func(o *origin) {
				o.bodies = func(string, Digest, int64, []byte) io.ReadCloser {
					return io.NopCloser(bytes.NewReader(corrupt))
				}
			},
			err:   cache.ErrMismatch,
			asked: 1,
		},
		"one that is longer than announced is refused": {
			script: func(o *origin) {
				o.bodies = func(_ string, _ Digest, _ int64, body []byte) io.ReadCloser {
					return io.NopCloser(bytes.NewReader(append(bytes.Clone(body), 'x')))
				}
			},
			err:   upstream.ErrBadAnswer,
			asked: 1,
		},
		"one that is not there is not found": {
			script: func(o *origin) { o.fail("*", upstream.ErrNotFound) },
			err:    upstream.ErrNotFound,
			asked:  1,
		},
		"one that is denied is denied": {
			script: func(o *origin) { o.fail("*", upstream.ErrDenied) },
			err:    upstream.ErrDenied,
			asked:  1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				layer := o.put("app", "layer", content)
				c.script(o)
				m := newMirror(t, o, nil)
				got, err := m.fetch(hubApp, layer.Digest)
				synctest.Wait()
				if !errors.Is(err, c.err) {
					t.Errorf("error %v, want %v", err, c.err)
				}
				if c.err == nil && !bytes.Equal(got, content) {
					t.Errorf("got %d bytes, or other ones, of %d", len(got), size)
				}
				if c.err != nil && len(got) > size-heldBack {
					t.Errorf("got %d of %d bytes of a blob that was never proven", len(got), size)
				}
				if kept := m.keeps(layer.Digest); kept != (c.err == nil) {
					t.Errorf("kept: %v", kept)
				}
				if asked := len(o.transcript()); asked != c.asked {
					t.Errorf("the upstream was asked %d times, want %d", asked, c.asked)
				}
				// Whatever happened, the next pull works.
				o.mu.Lock()
				o.bodies, o.failures = nil, nil
				o.mu.Unlock()
				time.Sleep(time.Minute) // past what is remembered as absent
				if got, err := m.fetch(hubApp, layer.Digest); err != nil || !bytes.Equal(got, content) {
					t.Errorf("the next pull got %d bytes and %v", len(got), err)
				}
			})
		})
	}
}

func TestABlobOfAnotherSizeThanItsManifestSaysIsRefusedBeforeItsFirstByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		_, layer := o.image("app", "1", bytesOf(5, 1000))
		m := newMirror(t, o, nil)
		if _, err := m.Manifest(t.Context(), hubApp, "1"); err != nil {
			t.Fatal(err)
		}
		o.mu.Lock()
		o.content["app "+layer.Digest.String()] = served{"layer", bytesOf(5, 2000)}
		o.mu.Unlock()
		got, err := m.fetch(hubApp, layer.Digest)
		if !errors.Is(err, upstream.ErrBadAnswer) || len(got) > 0 {
			t.Errorf("got %d bytes and %v", len(got), err)
		}
	})
}

func TestRanges(t *testing.T) {
	const size = 16 << 20
	content := bytesOf(6, size)
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		_, layer := o.image("app", "1", content)
		m := newMirror(t, o, nil)
		if _, err := m.Manifest(t.Context(), hubApp, "1"); err != nil {
			t.Fatal(err)
		}
		o.transcript()
		d := short(layer.Digest.String())
		flows := make(chan struct{})
		release := func() { close(flows) }
		o.bodies = func(_ string, _ Digest, from int64, body []byte) io.ReadCloser {
			if from > 0 {
				return io.NopCloser(bytes.NewReader(body))
			}
			return io.NopCloser(gated{flows, bytes.NewReader(body)})
		}
		read := func(off, n int64) (<-chan []byte, Blob) {
			b, err := m.Blob(t.Context(), hubApp, layer.Digest)
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan []byte, 1)
			go func() {
				var buf bytes.Buffer
				if _, err := b.WriteRange(context.Background(), &buf, off, n); err != nil {
					t.Errorf("range %d+%d: %v", off, n, err)
				}
				b.Close()
				got <- buf.Bytes()
			}()
			return got, b
		}
		// Far ahead of the flight, and bounded: passed through (stargz's footer).
		footer, _ := read(size-100, 100)
		if got := <-footer; !bytes.Equal(got, content[size-100:]) {
			t.Errorf("the footer is %d other bytes", len(got))
		}
		synctest.Wait()
		wantTranscript(t, o, "GET blob app "+d, fmt.Sprintf("GET blob app %s %d+100", d, size-100))
		// W21: open ranges of one blob wait for the one download.
		var open []<-chan []byte
		for at := int64(0); at < size; at += 4 << 20 {
			got, _ := read(at, -1)
			open = append(open, got)
		}
		synctest.Wait()
		release()
		for i, got := range open {
			if at := i * (4 << 20); !bytes.Equal(<-got, content[at:]) {
				t.Errorf("the range from %d is wrong", at)
			}
		}
		wantTranscript(t, o)
	})
}

func TestAFullDiskCostsTheCacheAndNotThePull(t *testing.T) {
	const size = 18 << 20 // more than two windows
	content := bytesOf(7, size)
	for name, room := range map[string]int64{
		"full from the start":           0,
		"full in the middle of a draft": size / 2,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				layer := o.put("app", "layer", content)
				bypassed := 0
				full := memory.NewBounded(room)
				m := newMirror(t, o, func(opts *Options) {
					opts.Blobs = full.Blobs()
					opts.Events.Bypassed = func(string) { bypassed++ }
				})
				var clients sync.WaitGroup
				for range 3 {
					clients.Go(func() {
						got, err := m.fetch(hubApp, layer.Digest)
						if err != nil || !bytes.Equal(got, content) {
							t.Errorf("a client got %d bytes and %v", len(got), err)
						}
					})
				}
				clients.Wait()
				synctest.Wait()
				if bypassed == 0 {
					t.Error("nobody counted that the blob is not kept")
				}
				if m.keeps(layer.Digest) {
					t.Error("a blob is kept without room for it")
				}
			})
		})
	}
}

func TestAStuckClientDoesNotHoldUpTheOthersOfAFlightWithoutADisk(t *testing.T) {
	const size = 18 << 20
	content := bytesOf(8, size)
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		layer := o.put("app", "layer", content)
		full := memory.NewBounded(0)
		m := newMirror(t, o, func(opts *Options) { opts.Blobs = full.Blobs() })
		release := o.hold("GET blob app " + short(layer.Digest.String()))
		stuck, free := make(chan error, 1), make(chan []byte, 1)
		unstick := make(chan struct{})
		go func() {
			b, err := m.Blob(context.Background(), hubApp, layer.Digest)
			if err == nil {
				_, err = b.WriteRange(context.Background(), stuckWriter{unstick}, 0, -1)
				b.Close()
			}
			stuck <- err
		}()
		go func() {
			got, err := m.fetch(hubApp, layer.Digest)
			if err != nil {
				t.Error(err)
			}
			free <- got
		}()
		synctest.Wait()
		release()
		if got := <-free; !bytes.Equal(got, content) {
			t.Errorf("the client that reads got %d bytes", len(got))
		}
		close(unstick)
		if err := <-stuck; err == nil {
			t.Error("the stuck client was told that it has everything")
		}
	})
}

type stuckWriter struct{ until <-chan struct{} }

func (w stuckWriter) Write(b []byte) (int, error) {
	<-w.until
	return len(b), nil
}

func TestMembership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		_, layer := o.image("app", "1", bytesOf(9, 5000))
		other := Repository{Upstream: "hub", Name: "other"}
		m := newMirror(t, o, nil)
		if _, err := m.Manifest(t.Context(), hubApp, "1"); err != nil {
			t.Fatal(err)
		}
		if _, err := m.fetch(hubApp, layer.Digest); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		o.transcript()
		d := short(layer.Digest.String())
		// The bytes are here; that the other repository has them is not known.
		if got, err := m.fetch(other, layer.Digest); !errors.Is(err, upstream.ErrNotFound) || len(got) > 0 {
			t.Errorf("another repository got %d bytes and %v", len(got), err)
		}
		wantTranscript(t, o, "HEAD blob other "+d)
		o.fail("HEAD blob private "+d, upstream.ErrDenied)
		if _, err := m.fetch(Repository{Upstream: "hub", Name: "private"}, layer.Digest); !errors.Is(err, upstream.ErrDenied) {
			t.Errorf("a repository that the upstream denies got %v", err)
		}
		o.transcript()
		// Once the upstream says so, the bytes are shared.
		o.put("third", "layer", bytesOf(9, 5000))
		if _, err := m.fetch(Repository{Upstream: "hub", Name: "third"}, layer.Digest); err != nil {
			t.Error(err)
		}
		wantTranscript(t, o, "HEAD blob third "+d)
		if _, err := m.fetch(Repository{Upstream: "hub", Name: "third"}, layer.Digest); err != nil {
			t.Error(err)
		}
		wantTranscript(t, o)
	})
}

func TestHEADOfABlobNeverDownloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		layer := o.put("app", "layer", bytesOf(10, 5000))
		m := newMirror(t, o, nil)
		desc, _, err := m.ResolveBlob(t.Context(), hubApp, layer.Digest)
		if err != nil || desc.Size != 5000 {
			t.Errorf("size %d, error %v", desc.Size, err)
		}
		wantTranscript(t, o, "HEAD blob app "+short(layer.Digest.String()))
	})
}

func TestTheLastBytesAreHeldBackUntilTheDigestIsProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 64 << 10
		o := newOrigin()
		layer := o.put("app", "layer", bytesOf(11, size))
		last := make(chan struct{})
		o.bodies = func(_ string, _ Digest, _ int64, body []byte) io.ReadCloser {
			return io.NopCloser(io.MultiReader(bytes.NewReader(body[:size-1]), gated{last, bytes.NewReader(body[size-1:])}))
		}
		m := newMirror(t, o, nil)
		b, err := m.Blob(t.Context(), hubApp, layer.Digest)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		var got bytes.Buffer
		done := make(chan error, 1)
		go func() {
			_, err := b.WriteRange(context.Background(), &got, 0, -1)
			done <- err
		}()
		synctest.Wait()
		if got.Len() != size-heldBack {
			t.Errorf("%d bytes are out before the last one is in, want %d", got.Len(), size-heldBack)
		}
		close(last)
		if err := <-done; err != nil || got.Len() != size {
			t.Errorf("in the end %d bytes and %v", got.Len(), err)
		}
	})
}

func TestClientsOfAnothersFailedFlightShareOneOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, nil)
		_, layer := o.image("app", "1", bytesOf(1, 100<<10))
		if _, err := m.Manifest(t.Context(), hubApp, "1"); err != nil {
			t.Fatal(err)
		}
		// Someone asks for the layer in a repository that does not have it.
		release := o.hold("GET blob other " + short(layer.Digest.String()))
		var stranger sync.WaitGroup
		stranger.Go(func() {
			if err := m.read(t.Context(), Repository{Upstream: "hub", Name: "other"}, layer.Digest); !errors.Is(err, upstream.ErrNotFound) {
				t.Errorf("the stranger got %v", err)
			}
		})
		synctest.Wait()
		var joined sync.WaitGroup
		for range 2 {
			joined.Go(func() {
				if err := m.read(t.Context(), hubApp, layer.Digest); err != nil {
					t.Errorf("a client that joined: %v", err)
				}
			})
		}
		synctest.Wait()
		o.transcript()
		release()
		stranger.Wait()
		joined.Wait()
		settleDown()
		wantTranscript(t, o, "GET blob app "+short(layer.Digest.String()))
		m.wantCounted(t)
	})
}

func TestAFlightThatIsLostIsNotJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, nil)
		_, layer := o.image("app", "1", bytesOf(1, 100<<10))
		if _, err := m.Manifest(t.Context(), hubApp, "1"); err != nil {
			t.Fatal(err)
		}
		// One has just been lost, and its goroutine is not gone yet.
		f := m.newFlight(hubApp, layer, true)
		defer f.store.release()
		f.lose(upstream.ErrNotFound)
		m.flights.mu.Lock()
		m.flights.byDigest[layer.Digest] = f
		m.flights.mu.Unlock()
		if err := m.read(t.Context(), hubApp, layer.Digest); err != nil {
			t.Errorf("the client got %v", err)
		}
		settleDown()
	})
}
