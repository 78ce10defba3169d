package pull_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/cachetest"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

func TestMain(m *testing.M) {
	cachetest.InMemory()
	goleak.VerifyTestMain(m)
}

func TestFiftyClientsOfOneColdBlobShareOneDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		layer := o.Put("app", "layer", mirrortest.Bytes(1, 1<<20))
		m := mirrortest.New(t, o, nil)
		release := o.Hold("GET blob app " + mirrortest.Short(layer.Digest.String()))
		var clients sync.WaitGroup
		for range 50 {
			clients.Go(func() {
				got, err := m.Fetch(mirrortest.App, layer.Digest)
				if err != nil || !bytes.Equal(got, mirrortest.Bytes(1, 1<<20)) {
					t.Errorf("a client got %d bytes and error %v", len(got), err)
				}
			})
		}
		synctest.Wait()
		release()
		clients.Wait()
		synctest.Wait()
		mirrortest.WantTranscript(t, o, "GET blob app "+mirrortest.Short(layer.Digest.String()))
		if _, err := m.Fetch(mirrortest.App, layer.Digest); err != nil {
			t.Fatal(err)
		}
		mirrortest.WantTranscript(t, o)
	})
}

// gated blocks reads until its gate is open.
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
		o := mirrortest.NewOrigin()
		layer := o.Put("app", "layer", mirrortest.Bytes(3, 64<<10))
		m := mirrortest.New(t, o, nil)
		release := o.Hold("GET blob app " + mirrortest.Short(layer.Digest.String()))
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			b, err := m.Blob(ctx, mirrortest.App, layer.Digest, pull.Want{})
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
		if !m.HasContent(layer.Digest) {
			t.Error("the blob is not cached")
		}
	})
}

// Whatever happens to a download, the next pull of the blob works.
func TestAPullAfterAFailedDownload(t *testing.T) {
	const size = 300 << 10
	content := mirrortest.Bytes(4, size)
	corrupt := bytes.Clone(content)
	corrupt[size/2] ^= 1
	for name, c := range map[string]struct {
		script func(o *mirrortest.Origin)
		err    error // what the first client sees
	}{
		"one with a wrong byte": {
			script: func(o *mirrortest.Origin) {
				o.Bodies = func(string, pull.Digest, int64, []byte) io.ReadCloser {
					return io.NopCloser(bytes.NewReader(corrupt))
				}
			},
			err: cache.ErrMismatch,
		},
		"one that never gets further": {
			script: func(o *mirrortest.Origin) {
				o.Bodies = func(_ string, _ pull.Digest, from int64, body []byte) io.ReadCloser {
					return mirrortest.CutAfter(body, int(100<<10-from), upstream.ErrUnavailable)
				}
			},
			err: upstream.ErrUnavailable,
		},
		"one that is not there": {
			script: func(o *mirrortest.Origin) { o.Fail("*", upstream.ErrNotFound) },
			err:    upstream.ErrNotFound,
		},
		"one that is denied": {
			script: func(o *mirrortest.Origin) { o.Fail("*", upstream.ErrDenied) },
			err:    upstream.ErrDenied,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				layer := o.Put("app", "layer", content)
				c.script(o)
				m := mirrortest.New(t, o, nil)
				got, err := m.Fetch(mirrortest.App, layer.Digest)
				synctest.Wait()
				if !errors.Is(err, c.err) || len(got) == size {
					t.Errorf("%d bytes and error %v, want %v", len(got), err, c.err)
				}
				if m.HasContent(layer.Digest) {
					t.Error("it is cached")
				}
				// Only a "not found" is remembered.
				o.Transcript()
				_, again := m.Fetch(mirrortest.App, layer.Digest)
				if !errors.Is(again, c.err) {
					t.Errorf("the same client again: %v", again)
				}
				synctest.Wait()
				if asked := len(o.Transcript()) > 0; asked == errors.Is(c.err, upstream.ErrNotFound) {
					t.Errorf("the upstream was asked again: %v", asked)
				}
				o.Bodies = nil
				o.ClearFailures()
				time.Sleep(time.Minute) // past what is remembered as absent
				if got, err := m.Fetch(mirrortest.App, layer.Digest); err != nil || !bytes.Equal(got, content) {
					t.Errorf("the next pull got %d bytes and %v", len(got), err)
				}
			})
		})
	}
}

func TestABlobWhoseSizeDiffersFromItsManifestIsRefusedBeforeItsFirstByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		_, layer := o.Image("app", "1", mirrortest.Bytes(5, 1000))
		m := mirrortest.New(t, o, nil)
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		o.Replace("app", layer.Digest, "layer", mirrortest.Bytes(5, 2000))
		got, err := m.Fetch(mirrortest.App, layer.Digest)
		if !errors.Is(err, upstream.ErrInvalidResponse) || len(got) > 0 {
			t.Errorf("got %d bytes and %v", len(got), err)
		}
	})
}

func TestRanges(t *testing.T) {
	const size = 16 << 20
	content := mirrortest.Bytes(6, size)
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		_, layer := o.Image("app", "1", content)
		m := mirrortest.New(t, o, nil)
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		o.Transcript()
		d := mirrortest.Short(layer.Digest.String())
		flows := make(chan struct{})
		release := func() { close(flows) }
		o.Bodies = func(_ string, _ pull.Digest, from int64, body []byte) io.ReadCloser {
			if from > 0 {
				return io.NopCloser(bytes.NewReader(body))
			}
			return io.NopCloser(gated{flows, bytes.NewReader(body)})
		}
		read := func(off, n int64) (<-chan []byte, pull.Blob) {
			b, err := m.Blob(t.Context(), mirrortest.App, layer.Digest, pull.Want{})
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
		// A bounded range far ahead of the download is passed through (stargz
		// reads the footer first).
		footer, _ := read(size-100, 100)
		if got := <-footer; !bytes.Equal(got, content[size-100:]) {
			t.Errorf("the footer is %d other bytes", len(got))
		}
		synctest.Wait()
		mirrortest.WantTranscript(t, o, "GET blob app "+d, fmt.Sprintf("GET blob app %s %d+100", d, size-100))
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
		mirrortest.WantTranscript(t, o)
	})
}

func TestAFullDiskPreventsCachingButNotThePull(t *testing.T) {
	const size = 18 << 20 // more than two windows
	content := mirrortest.Bytes(7, size)
	for name, room := range map[string]int64{
		"full from the start":           0,
		"full in the middle of a draft": size / 2,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				layer := o.Put("app", "layer", content)
				o.NoLength = room > 0 // or it would be seen beforehand that it does not fit
				bypassed := 0
				full := memory.NewBounded(room)
				m := mirrortest.New(t, o, func(opts *mirror.Options) {
					opts.Blobs = full.Blobs()
					opts.Events.Bypassed = func(string) { bypassed++ }
				})
				var clients sync.WaitGroup
				for range 3 {
					clients.Go(func() {
						got, err := m.Fetch(mirrortest.App, layer.Digest)
						if err != nil || !bytes.Equal(got, content) {
							t.Errorf("a client got %d bytes and %v", len(got), err)
						}
					})
				}
				clients.Wait()
				synctest.Wait()
				if bypassed == 0 {
					t.Error("nobody counted that the blob is not cached")
				}
				if m.HasContent(layer.Digest) {
					t.Error("a blob is cached without room for it")
				}
			})
		})
	}
}

func TestAStuckClientDoesNotHoldUpTheOthersWhenTheDiskIsFull(t *testing.T) {
	const size = 18 << 20
	content := mirrortest.Bytes(8, size)
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		layer := o.Put("app", "layer", content)
		full := memory.NewBounded(0)
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Blobs = full.Blobs() })
		release := o.Hold("GET blob app " + mirrortest.Short(layer.Digest.String()))
		stuck, free := make(chan error, 1), make(chan []byte, 1)
		begun, unstick := make(chan struct{}), make(chan struct{})
		o.Bodies = func(_ string, _ pull.Digest, _ int64, body []byte) io.ReadCloser {
			return io.NopCloser(io.MultiReader(bytes.NewReader(body[:1<<20]), gated{begun, bytes.NewReader(body[1<<20:])}))
		}
		go func() {
			b, err := m.Blob(context.Background(), mirrortest.App, layer.Digest, pull.Want{})
			if err == nil {
				_, err = b.WriteRange(context.Background(), stuckWriter{begun, unstick}, 0, -1)
				b.Close()
			}
			stuck <- err
		}()
		go func() {
			got, err := m.Fetch(mirrortest.App, layer.Digest)
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
		if err := <-stuck; err != nil {
			t.Errorf("the stuck client got %v", err)
		}
	})
}

// A download on a full disk only has a window. A client that needs bytes before
// the window gets a download of its own, and a range is fetched by itself.
func TestAClientTooLateForADownloadOnAFullDiskGetsItsOwn(t *testing.T) {
	const size = 18 << 20
	content := mirrortest.Bytes(8, size)
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		layer := o.Put("app", "layer", content)
		full := memory.NewBounded(0)
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Blobs = full.Blobs() })
		d := mirrortest.Short(layer.Digest.String())
		last := make(chan struct{})
		var once sync.Once
		o.Bodies = func(_ string, _ pull.Digest, _ int64, body []byte) (rc io.ReadCloser) {
			rc = io.NopCloser(bytes.NewReader(body))
			once.Do(func() {
				rc = io.NopCloser(io.MultiReader(bytes.NewReader(body[:size-1]), gated{last, bytes.NewReader(body[size-1:])}))
			})
			return rc
		}
		var first sync.WaitGroup
		first.Go(func() {
			if got, err := m.Fetch(mirrortest.App, layer.Digest); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the first client got %d bytes and %v", len(got), err)
			}
		})
		synctest.Wait()
		mirrortest.WantTranscript(t, o, "GET blob app "+d)
		for _, c := range []struct {
			off, n  int64
			outcome pull.Outcome
			asked   string
		}{
			{0, -1, pull.Joined, "GET blob app " + d},
			{1000, 5000, pull.PassedThrough, "GET blob app " + d + " 1000+5000"},
		} {
			b, err := m.Blob(t.Context(), mirrortest.App, layer.Digest, pull.Want{})
			if err != nil {
				t.Fatal(err)
			}
			want := content[c.off:]
			if c.n >= 0 {
				want = want[:c.n]
			}
			var got bytes.Buffer
			if _, err := b.WriteRange(t.Context(), &got, c.off, c.n); err != nil || !bytes.Equal(got.Bytes(), want) || b.Outcome() != c.outcome {
				t.Errorf("from %d on: %d bytes, %s, %v", c.off, got.Len(), b.Outcome(), err)
			}
			b.Close()
			mirrortest.WantTranscript(t, o, c.asked)
		}
		close(last)
		first.Wait()
	})
}

// An upstream without ranges has to send everything again.
func TestARangeTooLateForADownloadOnAFullDiskNeedsNoRangesUpstream(t *testing.T) {
	const size = 18 << 20
	content := mirrortest.Bytes(8, size)
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.NoRange = true
		layer := o.Put("app", "layer", content)
		full := memory.NewBounded(0)
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Blobs = full.Blobs() })
		last := make(chan struct{})
		var once sync.Once
		o.Bodies = func(_ string, _ pull.Digest, _ int64, body []byte) (rc io.ReadCloser) {
			rc = io.NopCloser(bytes.NewReader(body))
			once.Do(func() {
				rc = io.NopCloser(io.MultiReader(bytes.NewReader(body[:size-1]), gated{last, bytes.NewReader(body[size-1:])}))
			})
			return rc
		}
		var first sync.WaitGroup
		first.Go(func() {
			if got, err := m.Fetch(mirrortest.App, layer.Digest); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the first client got %d bytes and %v", len(got), err)
			}
		})
		synctest.Wait()
		want := pull.Want{Parts: func(int64) []pull.Span { return []pull.Span{{From: 9_000_000, To: 9_005_000}} }}
		b, err := m.Blob(t.Context(), mirrortest.App, layer.Digest, want)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		var got bytes.Buffer
		if _, err := b.WriteRange(t.Context(), &got, 9_000_000, 5000); err != nil || !bytes.Equal(got.Bytes(), content[9_000_000:9_005_000]) {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
		close(last)
		first.Wait()
	})
}

// stuckWriter writes nothing until it is told to.
type stuckWriter struct {
	begun chan<- struct{} // closed when it is written to
	until <-chan struct{}
}

func (w stuckWriter) Write(b []byte) (int, error) {
	select {
	case <-w.until:
		return len(b), nil
	default:
	}
	close(w.begun)
	<-w.until
	return len(b), nil
}

func TestMembership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		_, layer := o.Image("app", "1", mirrortest.Bytes(9, 5000))
		other := pull.Repository{Upstream: "hub", Name: "other"}
		m := mirrortest.New(t, o, nil)
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Fetch(mirrortest.App, layer.Digest); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		o.Transcript()
		d := mirrortest.Short(layer.Digest.String())
		// The content is here, but it is not known whether the other repository
		// has it.
		if got, err := m.Fetch(other, layer.Digest); !errors.Is(err, upstream.ErrNotFound) || len(got) > 0 {
			t.Errorf("another repository got %d bytes and %v", len(got), err)
		}
		mirrortest.WantTranscript(t, o, "HEAD blob other "+d)
		o.Fail("HEAD blob private "+d, upstream.ErrDenied)
		if _, err := m.Fetch(pull.Repository{Upstream: "hub", Name: "private"}, layer.Digest); !errors.Is(err, upstream.ErrDenied) {
			t.Errorf("a repository that the upstream denies got %v", err)
		}
		o.Transcript()
		// Once the upstream confirms it, the content is shared.
		o.Put("third", "layer", mirrortest.Bytes(9, 5000))
		if _, err := m.Fetch(pull.Repository{Upstream: "hub", Name: "third"}, layer.Digest); err != nil {
			t.Error(err)
		}
		mirrortest.WantTranscript(t, o, "HEAD blob third "+d)
		if _, err := m.Fetch(pull.Repository{Upstream: "hub", Name: "third"}, layer.Digest); err != nil {
			t.Error(err)
		}
		mirrortest.WantTranscript(t, o)
	})
}

func TestHEADOfABlobNeverDownloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		layer := o.Put("app", "layer", mirrortest.Bytes(10, 5000))
		m := mirrortest.New(t, o, nil)
		desc, _, err := m.ResolveBlob(t.Context(), mirrortest.App, layer.Digest)
		if err != nil || desc.Size != 5000 {
			t.Errorf("size %d, error %v", desc.Size, err)
		}
		mirrortest.WantTranscript(t, o, "HEAD blob app "+mirrortest.Short(layer.Digest.String()))
	})
}

func TestClientsOfAFailedForeignDownloadShareOneOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		_, layer := o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		// The layer is requested from a repository that does not have it.
		release := o.Hold("GET blob other " + mirrortest.Short(layer.Digest.String()))
		var stranger sync.WaitGroup
		stranger.Go(func() {
			if err := m.Read(t.Context(), pull.Repository{Upstream: "hub", Name: "other"}, layer.Digest); !errors.Is(err, upstream.ErrNotFound) {
				t.Errorf("the stranger got %v", err)
			}
		})
		synctest.Wait()
		var joined sync.WaitGroup
		for range 2 {
			joined.Go(func() {
				if err := m.Read(t.Context(), mirrortest.App, layer.Digest); err != nil {
					t.Errorf("a client that joined: %v", err)
				}
			})
		}
		synctest.Wait()
		o.Transcript()
		release()
		stranger.Wait()
		joined.Wait()
		mirrortest.Wait()
		mirrortest.WantTranscript(t, o, "GET blob app "+mirrortest.Short(layer.Digest.String()))
		m.WantUsageExact(t)
	})
}

// What another repository's download gives is one thing, what one's own
// upstream says another.
func TestAClientOfAnothersDownloadIsAnsweredThroughItsOwnRepository(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		content := mirrortest.Bytes(1, 100<<10)
		_, layer := o.Image("app", "1", content)
		o.Image("other", "1", content)
		d := mirrortest.Short(layer.Digest.String())
		release := o.Hold("GET blob other " + d)
		fails := make(chan struct{})
		o.Bodies = func(repo string, _ pull.Digest, _ int64, body []byte) io.ReadCloser {
			if repo != "other" {
				return io.NopCloser(bytes.NewReader(body))
			}
			return io.NopCloser(io.MultiReader(bytes.NewReader(body[:1000]), gated{fails, mirrortest.Failing{Err: upstream.ErrInvalidResponse}}))
		}
		var first sync.WaitGroup
		first.Go(func() {
			if err := m.Read(t.Context(), pull.Repository{Upstream: "hub", Name: "other"}, layer.Digest); !errors.Is(err, upstream.ErrInvalidResponse) {
				t.Errorf("the first client got %v", err)
			}
		})
		synctest.Wait()
		mirrortest.WantTranscript(t, o, "GET blob other "+d)

		// That the repository has it is asked beside the download, and not after it.
		o.Fail("HEAD blob private "+d, upstream.ErrDenied)
		if _, err := m.Fetch(pull.Repository{Upstream: "hub", Name: "private"}, layer.Digest); !errors.Is(err, upstream.ErrDenied) {
			t.Errorf("a repository that the upstream denies got %v", err)
		}
		mirrortest.WantTranscript(t, o, "HEAD blob private "+d)

		release()
		synctest.Wait()
		b, err := m.Blob(t.Context(), mirrortest.App, layer.Digest, pull.Want{})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		mirrortest.WantTranscript(t, o, "HEAD blob app "+d)
		var got bytes.Buffer
		done := make(chan error, 1)
		go func() {
			_, err := b.WriteRange(context.Background(), &got, 50_000, 20_000)
			done <- err
		}()
		synctest.Wait()
		close(fails)
		if err := <-done; err != nil || !bytes.Equal(got.Bytes(), content[50_000:70_000]) || b.Outcome() != pull.Miss {
			t.Errorf("%d bytes, %s, %v", got.Len(), b.Outcome(), err)
		}
		first.Wait()
		mirrortest.Wait()
		mirrortest.WantTranscript(t, o, fmt.Sprintf("GET blob app %s 1000+%d", d, len(content)-1000)) // the first download has left something
		if !m.HasContent(layer.Digest) {
			t.Error("it is not kept")
		}
	})
}

func TestCloseWaitsForDownloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		layer := o.Put("app", "layer", mirrortest.Bytes(1, 100<<10))
		ends := make(chan struct{})
		o.Bodies = func(_ string, _ pull.Digest, _ int64, body []byte) io.ReadCloser {
			return io.NopCloser(gated{ends, bytes.NewReader(body)}) // it takes a while to end
		}
		var running atomic.Int64
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Events.Flights = func(delta int) { running.Add(int64(delta)) }
		})
		b, err := m.Blob(t.Context(), mirrortest.App, layer.Digest, pull.Want{})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if running.Load() != 1 {
			t.Errorf("%d downloads are under way", running.Load())
		}
		time.AfterFunc(time.Minute, func() { close(ends) })
		m.Close()
		if running.Load() != 0 {
			t.Error("a download goes on")
		}
	})
}
