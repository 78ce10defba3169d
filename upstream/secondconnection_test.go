package upstream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// silentBlob is a blob whose bodies fall silent as a test says.
type silentBlob struct {
	fakeRegistry

	content []byte
	// answers are the answers, in order; the last one stands for all further
	// ones.
	answers []silentAnswer
	open    int // bodies that are not closed
	times   []time.Duration
	began   time.Time
}

// silentAnswer is how one request is answered.
type silentAnswer struct {
	header  time.Duration // until the answer
	after   int           // bytes of the body until it is silent
	silence time.Duration
	fails   bool // after the silence
	etag    string
	whole   bool // it has no ranges
	panics  bool
}

func (s *silentBlob) Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	s.mu.Lock()
	a := s.answers[min(len(s.times), len(s.answers)-1)]
	s.times = append(s.times, time.Since(s.began))
	s.asked = append(s.asked, fmt.Sprintf("%d+%d", from, n))
	s.mu.Unlock()
	select {
	case <-time.After(a.header):
	case <-ctx.Done():
		return Content{}, context.Cause(ctx)
	}
	if a.panics {
		panic("broken")
	}
	if a.whole {
		from, n = 0, -1
	}
	end := int64(len(s.content))
	if n >= 0 {
		end = from + n
	}
	s.mu.Lock()
	s.open++
	s.mu.Unlock()
	return Content{
		Body: &silentBodyOf{s: s, ctx: ctx, a: a, rest: s.content[from:end]},
		Size: int64(len(s.content)), From: from, Whole: a.whole, ETag: a.etag,
	}, nil
}

type silentBodyOf struct {
	s     *silentBlob
	ctx   context.Context
	a     silentAnswer
	rest  []byte
	sent  int
	close sync.Once
}

func (b *silentBodyOf) Read(p []byte) (int, error) {
	if b.sent >= b.a.after && b.a.silence > 0 {
		select {
		case <-time.After(b.a.silence):
		case <-b.ctx.Done():
			return 0, fmt.Errorf("%w: interrupted", ErrUnavailable)
		}
		if b.a.fails {
			return 0, ErrTimeout
		}
		b.a.silence = 0
	}
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	most := len(b.rest)
	if b.a.silence > 0 {
		most = min(most, b.a.after-b.sent)
	}
	n := copy(p, b.rest[:most])
	b.rest, b.sent = b.rest[n:], b.sent+n
	return n, nil
}

func (b *silentBodyOf) Close() error {
	b.close.Do(func() {
		b.s.mu.Lock()
		defer b.s.mu.Unlock()
		b.s.open--
	})
	return nil
}

func TestASecondConnectionBeginsBesideASilentOne(t *testing.T) {
	const size, half = 1000, 500
	const sec = time.Second
	forEver := 24 * time.Hour
	for name, c := range map[string]struct {
		answers []silentAnswer
		from, n int64
		asked   []string
		took    time.Duration
		fails   bool
	}{
		"nothing is silent for long": {
			answers: []silentAnswer{{after: half, silence: 14 * sec}}, n: -1,
			asked: []string{"0+-1"}, took: 14 * sec,
		},
		"the second one is faster": {
			answers: []silentAnswer{{after: half, silence: 20 * sec}, {}}, n: -1,
			asked: []string{"0+-1", "500+500"}, took: 15 * sec,
		},
		"the first one is faster in the end": {
			answers: []silentAnswer{{after: half, silence: 20 * sec}, {header: 10 * sec}}, n: -1,
			asked: []string{"0+-1", "500+500"}, took: 20 * sec,
		},
		"the first one breaks, and the second one comes late": {
			answers: []silentAnswer{{after: half, silence: 60 * sec, fails: true}, {header: 55 * sec}}, n: -1,
			asked: []string{"0+-1", "500+500"}, took: 70 * sec,
		},
		"both are silent": {
			answers: []silentAnswer{{after: half, silence: 60 * sec, fails: true}}, n: -1,
			asked: []string{"0+-1", "500+500"}, took: 75*sec + 60*sec, fails: true,
		},
		"a range": {
			answers: []silentAnswer{{after: 100, silence: forEver}, {}}, from: 200, n: 300,
			asked: []string{"200+300", "300+200"}, took: 15 * sec,
		},
		"silence before the first byte": {
			answers: []silentAnswer{{silence: forEver}, {}}, n: -1,
			asked: []string{"0+-1", "0+1000"}, took: 15 * sec,
		},
		"there is no third one": {
			answers: []silentAnswer{{after: half, silence: forEver}, {after: 100, silence: 50 * sec}}, n: -1,
			asked: []string{"0+-1", "500+500"}, took: 65 * sec,
		},
		"there are no ranges": {
			answers: []silentAnswer{{after: half, silence: 40 * sec}, {whole: true}}, n: -1,
			asked: []string{"0+-1", "500+500"}, took: 40 * sec,
		},
		"there are known to be no ranges": {
			answers: []silentAnswer{{after: half, silence: 40 * sec, whole: true}}, from: 300, n: -1,
			asked: []string{"300+-1"}, took: 40 * sec,
		},
		"the second one has other content": {
			answers: []silentAnswer{{after: half, silence: 40 * sec, etag: `"a"`}, {etag: `"b"`}}, n: -1,
			asked: []string{"0+-1", "500+500"}, took: 40 * sec,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &silentBlob{content: make([]byte, size), answers: c.answers, began: time.Now()}
				for i := range s.content {
					s.content[i] = byte(i * 7)
				}
				content, err := SecondConnection(Limit(s, 3)).Blob(t.Context(), "app", digest.FromString("x"), c.from, c.n)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(content.Body)
				want := s.content[content.From:]
				if c.n >= 0 {
					want = want[:c.n]
				}
				if (err != nil) != c.fails || !c.fails && !bytes.Equal(got, want) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				if took := time.Since(s.began); took != c.took && !c.fails || took > c.took {
					t.Errorf("it took %s, want %s", took, c.took)
				}
				content.Body.Close()
				synctest.Wait()
				if !slices.Equal(s.asked, c.asked) || s.open != 0 {
					t.Errorf("asked %q, want %q; %d bodies are open", s.asked, c.asked, s.open)
				}
			})
		})
	}
}

// Where there is a place for one request only, the second connection gets that
// of the first one when it is broken.
func TestASecondConnectionDoesNotWaitForThePlaceOfTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &silentBlob{content: make([]byte, 10), answers: []silentAnswer{{after: 5, silence: time.Minute, fails: true}, {}}, began: time.Now()}
		c, err := SecondConnection(Limit(s, 1)).Blob(t.Context(), "app", digest.FromString("x"), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c.Body)
		if err != nil || len(got) != 10 || time.Since(s.began) != time.Minute {
			t.Errorf("%d bytes, %v after %s", len(got), err, time.Since(s.began))
		}
		c.Body.Close()
	})
}

// A body that is closed while a second connection begins leaves nothing behind.
func TestAClosedBodyEndsBothConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &silentBlob{content: make([]byte, 10), answers: []silentAnswer{{after: 5, silence: 16 * time.Second}, {header: time.Hour}}, began: time.Now()}
		c, err := SecondConnection(s).Blob(t.Context(), "app", digest.FromString("x"), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c.Body, make([]byte, 6)); err != nil {
			t.Error(err)
		}
		c.Body.Close()
		if took := time.Since(s.began); took != 16*time.Second || s.open != 0 {
			t.Errorf("after %s, %d bodies are open", took, s.open)
		}
	})
}

// The second connection is none of those that are there: on HTTP/2 it would be
// the silent one, and an idle one may have been forgotten with it.
func TestASecondConnectionIsANewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote, _ := reach(t, func(w http.ResponseWriter, req *http.Request) {
			switch {
			case req.URL.Path == "/v2/app/manifests/1":
				late(req, time.Second)
				answerManifest(w)
			case req.Header.Get("Range") != "":
				w.Header().Set("Content-Range", "bytes 2-3/4")
				answer(w, http.StatusPartialContent, "application/octet-stream", "34")
			default:
				w.Header().Set("Content-Length", "4")
				_, _ = io.WriteString(w, "12")
				_ = http.NewResponseController(w).Flush()
				late(req, time.Hour)
			}
		})
		var dials atomic.Int32
		dial := remote.client.dial
		remote.client.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return dial(ctx, network, address)
		}
		for range 2 { // both leave their connections for others
			go func() {
				if c, err := remote.Manifest(t.Context(), "app", "1"); err == nil {
					_, _ = io.Copy(io.Discard, c.Body)
					c.Body.Close()
				}
			}()
		}
		time.Sleep(2 * time.Second)
		c, err := SecondConnection(Retry(remote)).Blob(t.Context(), "app", subjectOf(0), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Body.Close()
		before := dials.Load()
		if got, err := io.ReadAll(c.Body); string(got) != "1234" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		if dials.Load() != before+1 {
			t.Errorf("%d connections, and %d in the end", before, dials.Load())
		}
	})
}
