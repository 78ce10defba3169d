package pull_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// clientWait is how long a client waits for what is not cached.
const clientWait = 18 * time.Second

// held answers what is held up after a time.
func held(o *mirrortest.Origin, line string, d time.Duration) {
	release := o.Hold(line)
	time.AfterFunc(d, release)
}

// A client is answered in time, whatever it asks for. What it has asked for goes
// on, and is there for the next one: the upstream is asked once.
func TestWhatAClientDoesNotWaitForIsThereForTheNextOne(t *testing.T) {
	part := pull.Want{Parts: func(int64) []pull.Span { return []pull.Span{{From: 6 << 20, To: 7 << 20}} }}
	for name, c := range map[string]struct {
		line func(manifest, blob string) string
		ask  func(m mirrortest.Mirror, ctx context.Context, manifest, blob pull.Digest) error
	}{
		"a tag": {func(string, string) string { return "GET manifest app 1" }, func(m mirrortest.Mirror, ctx context.Context, _, _ pull.Digest) error {
			_, err := m.Manifest(ctx, mirrortest.App, "1")
			return err
		}},
		"a manifest": {func(manifest, _ string) string { return "GET manifest app " + manifest }, func(m mirrortest.Mirror, ctx context.Context, d, _ pull.Digest) error {
			_, err := m.Manifest(ctx, mirrortest.App, d.String())
			return err
		}},
		"a blob": {func(_, blob string) string { return "GET blob app " + blob }, func(m mirrortest.Mirror, ctx context.Context, _, d pull.Digest) error {
			return m.Read(ctx, mirrortest.App, d)
		}},
		"a range": {func(_, blob string) string { return "GET blob app " + blob + " 6291456+1048576" }, func(m mirrortest.Mirror, ctx context.Context, _, d pull.Digest) error {
			b, err := m.Blob(ctx, mirrortest.App, d, part)
			if err != nil {
				return err
			}
			defer b.Close()
			_, err = b.WriteRange(ctx, io.Discard, 6<<20, 1<<20)
			return err
		}},
		"a blob's size": {func(_, blob string) string { return "HEAD blob app " + blob }, func(m mirrortest.Mirror, ctx context.Context, _, d pull.Digest) error {
			_, _, err := m.ResolveBlob(ctx, mirrortest.App, d)
			return err
		}},
		"a list of tags": {func(string, string) string { return "GET tags app n=5" }, func(m mirrortest.Mirror, ctx context.Context, _, _ pull.Digest) error {
			_, err := m.Tags(ctx, mirrortest.App, url.Values{"n": {"5"}})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for answer, want := range map[error]error{nil: nil, upstream.ErrNotFound: upstream.ErrNotFound, upstream.ErrDenied: upstream.ErrDenied} {
				synctest.Test(t, func(t *testing.T) {
					o := mirrortest.NewOrigin()
					manifest, blob := o.Image("app", "1", mirrortest.Bytes(1, 20<<20))
					o.Put("app", "tags", nil, "tags") // the origin lists tags of what is there
					m := mirrortest.New(t, o, nil)
					line := c.line(mirrortest.Short(manifest.Digest.String()), mirrortest.Short(blob.Digest.String()))
					held(o, line, 45*time.Second)
					if answer != nil {
						o.Fail(line, answer)
					}
					began := time.Now()
					err := c.ask(m, t.Context(), manifest.Digest, blob.Digest)
					if !errors.Is(err, upstream.ErrTimeout) || time.Since(began) != clientWait {
						t.Errorf("%v after %s", err, time.Since(began))
					}
					time.Sleep(5 * time.Second)
					err = c.ask(m, t.Context(), manifest.Digest, blob.Digest)
					if !errors.Is(err, upstream.ErrTimeout) || time.Since(began) != 2*clientWait+5*time.Second {
						t.Errorf("the second: %v after %s", err, time.Since(began))
					}
					time.Sleep(time.Until(began.Add(time.Minute)))
					err = c.ask(m, t.Context(), manifest.Digest, blob.Digest)
					if !errors.Is(err, want) || time.Since(began) != time.Minute {
						t.Errorf("a minute later: %v after %s", err, time.Since(began))
					}
					asked := slices.DeleteFunc(o.Transcript(), func(l string) bool { return l != line })
					if len(asked) != 1 {
						t.Errorf("asked %q", asked)
					}
				})
			}
		})
	}
}

// Whoever is no client waits as long as the upstream may take.
func TestABackgroundPullWaitsLongerThanAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		manifest, blob := o.Image("app", "1", mirrortest.Bytes(1, 1000))
		m := mirrortest.New(t, o, nil)
		held(o, "GET manifest app 1", 100*time.Second)
		held(o, "GET blob app "+mirrortest.Short(blob.Digest.String()), 200*time.Second)
		if got, err := m.WaitForManifest(t.Context(), mirrortest.App, "1"); err != nil || got.Descriptor.Digest != manifest.Digest {
			t.Error(err)
		}
		if err := m.FetchBlob(t.Context(), mirrortest.App, blob); err != nil {
			t.Error(err)
		}
	})
}

// The download of another repository does not answer, and the client leaves, or
// is told in time. It asked itself for the blob again and again once.
func TestAClientThatJoinsTheDownloadOfAnotherRepositoryIsToldInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		other := mirrortest.Repository{Upstream: "hub", Name: "other"}
		_, blob := o.Image("app", "1", mirrortest.Bytes(1, 1000))
		o.Image("other", "1", mirrortest.Bytes(1, 1000))
		m := mirrortest.New(t, o, nil)
		for _, repo := range []mirrortest.Repository{mirrortest.App, other} { // both are known to have it
			if _, err := m.Manifest(t.Context(), repo, "1"); err != nil {
				t.Fatal(err)
			}
		}
		held(o, "GET blob other "+mirrortest.Short(blob.Digest.String()), time.Minute)
		go func() { _ = m.Read(t.Context(), other, blob.Digest) }()
		synctest.Wait()
		leaves, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		for _, c := range []struct {
			ctx  context.Context
			took time.Duration
		}{{leaves, time.Second}, {t.Context(), clientWait}} {
			began := time.Now()
			if err := m.Read(c.ctx, mirrortest.App, blob.Digest); err == nil || time.Since(began) != c.took {
				t.Errorf("%v after %s", err, time.Since(began))
			}
		}
		time.Sleep(time.Minute)
		if err := m.Read(t.Context(), mirrortest.App, blob.Digest); err != nil {
			t.Error(err)
		}
	})
}

// A tag that carries referrers may hang, and the API have the list.
func TestATagOfReferrersThatHangsIsBuiltFromTheAPIInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		image, _ := o.Image("app", "1", []byte("layer"))
		o.Attach(image, "application/vnd.example")
		m := mirrortest.New(t, o, nil)
		tag := referrers.TagOf(image.Digest)
		held(o, "GET manifest app "+tag, time.Hour)
		began := time.Now()
		got, err := m.Manifest(t.Context(), mirrortest.App, tag)
		if err != nil || !got.Stale || !bytes.Contains(got.Bytes, []byte("application/vnd.example")) || time.Since(began) > clientWait {
			t.Errorf("%v after %s: %s", err, time.Since(began), got.Bytes)
		}
	})
}

// begun notes when an answer begins.
type begun struct {
	at    time.Time
	bytes int
}

func (b *begun) Write(p []byte) (int, error) {
	if b.at.IsZero() {
		b.at = time.Now()
	}
	b.bytes += len(p)
	return len(p), nil
}

// A body may be silent before its first byte: that is as late as any answer. A
// download that gets on, but is far from what the client wants, is another thing:
// its answer begins.
func TestAnAnswerBeginsInTimeIfTheDownloadGetsOn(t *testing.T) {
	for name, c := range map[string]struct {
		every time.Duration // comes a quarter of a MiB
		want  error
	}{"silence": {time.Hour, upstream.ErrTimeout}, "a slow line": {10 * time.Second, nil}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				layer := o.Put("app", "layer", mirrortest.Bytes(1, 1<<20))
				o.NoRange = true
				o.Bodies = func(_ string, _ pull.Digest, _ int64, body []byte) io.ReadCloser {
					return io.NopCloser(paced{bytes.NewReader(body), c.every})
				}
				m := mirrortest.New(t, o, nil)
				began := time.Now()
				b, err := m.Blob(t.Context(), mirrortest.App, layer.Digest, pull.Want{Parts: func(int64) []pull.Span { return []pull.Span{{From: 1000 << 10, To: 1001 << 10}} }})
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				var out begun
				n, err := b.WriteRange(t.Context(), &out, 1000<<10, 1<<10)
				if !errors.Is(err, c.want) || (n == 1<<10) != (err == nil) {
					t.Errorf("%d bytes, %v", n, err)
				}
				at := out.at
				if err != nil {
					at = time.Now()
				}
				if at.Sub(began) != clientWait {
					t.Errorf("it began after %s (%s)", at.Sub(began), fmt.Sprint(out))
				}
			})
		})
	}
}

// paced waits before each quarter of a MiB.
type paced struct {
	r     io.Reader
	every time.Duration
}

func (p paced) Read(b []byte) (int, error) {
	time.Sleep(p.every)
	return p.r.Read(b[:min(len(b), 256<<10)])
}
