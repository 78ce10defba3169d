package flight_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/cachetest"
	"github.com/entrepot/entrepot/cache/cachetest/content"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/upstream"
)

func TestMain(m *testing.M) {
	cachetest.InMemory()
	goleak.VerifyTestMain(m)
}

// scripted is a Source and the Observer of its downloads. It has the given
// content, fails as requested, and records its requests and notifications.
type scripted struct {
	content   []byte
	mediaType string
	noRange   bool
	noLength  bool
	etag      string
	upstream  string
	fail      error
	gate      chan struct{}                               // nil, or answers wait until it is closed
	bodies    func(from int64, body []byte) io.ReadCloser // nil for the content itself
	onCall    func()                                      // called with each call, where it is set
	awaited   func() bool                                 // says whether others wait for what an answer holds

	mu       sync.Mutex
	asked    []string
	notified []string // by the download, but for Received
	received int64
	reads    int
	// hasRanges is what the observer was told of that.
	hasRanges []bool
}

func (s *scripted) String() string { return "the scripted content" }

func (s *scripted) Origin() flight.Origin {
	return flight.Origin{Upstream: cmp.Or(s.upstream, "hub"), Repository: "app"}
}

func (s *scripted) Blob(ctx context.Context, from, n int64) (upstream.Content, error) {
	s.called()
	s.mu.Lock()
	s.asked = append(s.asked, fmt.Sprintf("%d+%d", from, n))
	s.mu.Unlock()
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return upstream.Content{}, ctx.Err()
		}
	}
	if s.fail != nil {
		return upstream.Content{}, s.fail
	}
	whole := s.noRange && (from > 0 || n >= 0)
	if s.noRange {
		from, n = 0, -1
	}
	body := s.content[from:]
	if n >= 0 {
		body = body[:min(n, int64(len(body)))]
	}
	c := upstream.Content{Body: io.NopCloser(bytes.NewReader(body)), MediaType: s.mediaType, Size: int64(len(s.content)), From: from, Whole: whole, ETag: s.etag, IsAwaited: s.awaited}
	if s.bodies != nil {
		c.Body = s.bodies(from, body)
	}
	if s.noLength {
		c.Size = -1
	}
	return c, nil
}

func (s *scripted) called() {
	if s.onCall != nil {
		s.onCall()
	}
}

func (s *scripted) notify(format string, args ...any) {
	s.called()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notified = append(s.notified, fmt.Sprintf(format, args...))
}

func (s *scripted) Answered(size int64)  { s.notify("answered %d", size) }
func (s *scripted) Completed(size int64) { s.notify("completed %d", size) }
func (s *scripted) NotCached()           { s.notify("not kept") }
func (s *scripted) Failed(error)         { s.notify("failed") }

func (s *scripted) HasRanges(has bool) {
	s.called()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hasRanges = append(s.hasRanges, has)
}

func (s *scripted) Received(n int64) {
	s.called()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received += n
	s.reads++
}

func (s *scripted) want() cache.Descriptor {
	return cache.Descriptor{Digest: content.Digest(s.content), Size: -1}
}

func (s *scripted) start() flight.StartOptions {
	return flight.StartOptions{Source: s, Observer: s, Log: slog.New(slog.DiscardHandler)}
}

func (s *scripted) transcript() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// transcriptSoFar leaves the transcript as it is.
func (s *scripted) transcriptSoFar() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *scripted) wantAsked(t *testing.T, want ...string) {
	t.Helper()
	if got := s.transcript(); !slices.Equal(got, want) {
		t.Errorf("the source was asked %q, want %q", got, want)
	}
}

func (s *scripted) wantNotified(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.notified, want) {
		t.Errorf("the observer was told %q, want %q", s.notified, want)
	}
}

// testSink is a Sink over a memory cache that may be bounded.
type testSink struct {
	cache.Blobs
	onCall   func() // called with each call but Has, where it is set
	onExpect func(n int64)

	room    chan struct{} // nil, or what is published waits until it is closed
	keeping chan struct{} // nil, or Keep waits until it is closed
	broken  atomic.Bool   // hashing what a draft has panics

	most int64 // that may be expected; 0 is without a bound

	mu          sync.Mutex
	expected    int64
	grown       []int64
	saved       []string // the notes of drafts that were saved
	notKept     int
	quarantined int64
}

func newTestSink(store *memory.Cache) *testSink { return &testSink{Blobs: store.Blobs()} }

func (s *testSink) called() {
	if s.onCall != nil {
		s.onCall()
	}
}

func (s *testSink) Has(ctx context.Context, d cache.Digest) bool {
	_, err := s.Stat(ctx, d)
	return err == nil
}

func (s *testSink) Create(ctx context.Context, want cache.Descriptor) (cache.Draft, error) {
	s.called()
	draft, err := s.Blobs.Create(ctx, want)
	if err != nil {
		return nil, err
	}
	return savedDraft{draft, s}, nil
}

// savedDraft notes when it is saved.
type savedDraft struct {
	cache.Draft
	by *testSink
}

func (d savedDraft) Save(note []byte) error {
	d.by.mu.Lock()
	defer d.by.mu.Unlock()
	d.by.saved = append(d.by.saved, string(note))
	return d.Draft.Save(note)
}

func (d savedDraft) Advance(n int) (int, error) {
	if d.by.broken.Load() {
		panic("broken")
	}
	return d.Draft.Advance(n)
}

func (s *testSink) Resume(ctx context.Context, d cache.Digest) (cache.Draft, cache.KeptDraft, error) {
	s.called()
	return s.Blobs.Resume(ctx, d)
}

func (s *testSink) Reserve(draft cache.Draft, _ cache.Descriptor) error {
	s.called()
	return draft.Reserve()
}

func (s *testSink) Keep(_ context.Context, _ cache.Digest, draft cache.Draft, note []byte) error {
	s.called()
	if s.keeping != nil {
		<-s.keeping
	}
	return draft.Keep(note)
}

func (s *testSink) AddIncoming(n int64) {
	s.called()
	if s.onExpect != nil {
		s.onExpect(n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expected += n
}

func (s *testSink) Grow(n int64) error {
	s.called()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most > 0 && s.expected+n > s.most {
		return cache.ErrFull
	}
	s.expected += n
	s.grown = append(s.grown, n)
	return nil
}

func (s *testSink) Publish(ctx context.Context, _ cache.Digest, _ int64, draft cache.Draft) error {
	s.called()
	if s.room != nil {
		select {
		case <-s.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return draft.Commit()
}

func (s *testSink) NotCached() {
	s.called()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notKept++
}

func (s *testSink) Quarantined(size int64) {
	s.called()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quarantined += size
}

func (s *testSink) has(d cache.Digest) bool { return s.Has(context.Background(), d) }

// group is a Group that ends with its test.
type group struct {
	*flight.Group
	stop context.CancelFunc
}

func newGroup(t *testing.T, sink flight.Sink) group {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	g := group{flight.NewGroup(ctx, sink, flight.Options{Max: 100}), stop}
	t.Cleanup(func() {
		stop()
		g.Wait()
	})
	return g
}

// join joins or starts a download that is not cached yet.
func (g group) join(t *testing.T, want cache.Descriptor, start flight.StartOptions) (f *flight.Flight, started bool) {
	t.Helper()
	f, started, err := g.Join(want, start)
	if err != nil || f == nil {
		t.Fatalf("joined %v: %v", f, err)
	}
	return f, started
}

// read reads all of the content as a client would.
func (g group) read(want cache.Descriptor, start flight.StartOptions) ([]byte, error) {
	f, _, err := g.Join(want, start)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	var got bytes.Buffer
	_, err = f.Follow(context.Background(), &got, 0, -1)
	return got.Bytes(), err
}

// follow reads all of the content in the background.
func follow(f *flight.Flight, got io.Writer) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := f.Follow(context.Background(), got, 0, -1)
		done <- err
	}()
	return done
}

func bytesOf(seed byte, n int) []byte { return content.Bytes(seed, n) }

// cutAfter returns a body that fails after n bytes.
func cutAfter(body []byte, n int, err error) io.ReadCloser {
	return io.NopCloser(io.MultiReader(bytes.NewReader(body[:min(n, len(body))]), failing{err}))
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// gated blocks reads until its gate is open.
type gated struct {
	open <-chan struct{}
	r    io.Reader
}

func (g gated) Read(b []byte) (int, error) {
	<-g.open
	return g.r.Read(b)
}

// heldAt is a body that blocks after n bytes until the gate is open.
func heldAt(n int, open <-chan struct{}) func(from int64, body []byte) io.ReadCloser {
	return func(_ int64, body []byte) io.ReadCloser {
		return io.NopCloser(io.MultiReader(bytes.NewReader(body[:n]), gated{open, bytes.NewReader(body[n:])}))
	}
}
