package retention_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream"
)

// blobServer is how the upstream of the model sends blobs.
type blobServer struct {
	noRanges atomic.Bool // sends the whole whatever is requested (F38)
	etags    bool        // sends validators
	noSize   bool        // does not say how large a blob is

	mu sync.Mutex
	// lies are the wrong bytes that were sent, by their offsets.
	lies map[retention.Digest]map[int64]bool
	// versions are how often the validator of a blob has changed, and changed
	// are those that have since something of them is here.
	versions map[retention.Digest]int
	changed  map[retention.Digest]bool
}

func newBlobServer() *blobServer {
	return &blobServer{lies: map[retention.Digest]map[int64]bool{}, versions: map[retention.Digest]int{}, changed: map[retention.Digest]bool{}}
}

// Blob implements [upstream.Registry].
func (m *testUpstream) Blob(ctx context.Context, repo string, d retention.Digest, from, n int64) (upstream.Content, error) {
	return withMood(ctx, m, func() (upstream.Content, error) {
		_, held := m.Get(repo, d.String())
		size := int64(len(m.bodies[d].Body))
		ranged := from > 0 || n >= 0
		whole := ranged && m.blobs.noRanges.Load()
		switch {
		case held && whole, held && n < 0 && from >= size: // as Remote does after a 416
			from, n, whole = 0, -1, ranged
		case held && ranged && from >= size:
			return upstream.Content{}, fmt.Errorf("%d bytes from %d: %w", n, from, &upstream.RefusedError{Status: 416})
		}
		c, err := m.Origin.Blob(ctx, repo, d, from, n)
		if err != nil {
			return c, err
		}
		if c.Whole = whole; m.blobs.noSize {
			c.Size = -1
		}
		return m.send(d, c)
	})
}

// send lets a flaky upstream cut off bodies, flip bits and change validators.
func (m *testUpstream) send(d retention.Digest, c upstream.Content) (upstream.Content, error) {
	body, err := io.ReadAll(c.Body)
	if err != nil {
		return c, err
	}
	end := io.EOF
	flaky := m.mood() == flaky && len(body) > 0
	m.blobs.mu.Lock()
	defer m.blobs.mu.Unlock()
	if flaky && m.luck.below(10) == 0 {
		m.blobs.versions[d]++
		m.blobs.changed[d] = m.blobs.etags
	}
	if m.blobs.etags {
		c.ETag = fmt.Sprintf("%q", fmt.Sprint(mirrortest.Short(d.String()), m.blobs.versions[d]))
	}
	if flaky {
		switch m.luck.below(8) {
		case 0:
			body, end = body[:m.luck.below(len(body))], upstream.ErrUnavailable
		case 1:
			at := m.luck.below(len(body))
			body[at] ^= 1
			if m.blobs.lies[d] == nil {
				m.blobs.lies[d] = map[int64]bool{}
			}
			m.blobs.lies[d][c.From+int64(at)] = true
		}
	}
	c.Body = &trickle{rest: body, end: end, luck: m.luck}
	return c, nil
}

// trickle is a body that comes in pieces, with pauses.
type trickle struct {
	rest []byte
	end  error
	luck *luck
}

func (b *trickle) Read(p []byte) (int, error) {
	if b.luck.below(4) == 0 {
		time.Sleep(time.Duration(1+b.luck.below(20)) * time.Millisecond)
	}
	n := copy(p, b.rest[:min(len(b.rest), 1+b.luck.below(16<<10))])
	if b.rest = b.rest[n:]; len(b.rest) == 0 {
		return n, b.end
	}
	return n, nil
}

func (b *trickle) Close() error { return nil }

// hasLied says whether wrong bytes of a blob, or of any, were sent and may still
// be here.
func (s *blobServer) hasLied(of ...retention.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range of {
		if len(s.lies[d]) > 0 {
			return true
		}
	}
	return len(of) == 0 && len(s.lies) > 0
}

// hasChanged says whether the validator of a blob has changed, and pieces may be
// of what it was before.
func (s *blobServer) hasChanged(d retention.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed[d]
}

// wrong returns the offset of the first byte that is neither the truth nor what
// was sent in its place, or -1.
func (s *blobServer) wrong(d retention.Digest, truth, got []byte, off int64) int64 {
	if bytes.HasPrefix(truth[min(off, int64(len(truth))):], got) {
		return -1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range got {
		at := off + int64(i)
		if at >= int64(len(truth)) || b != truth[at] && (b != truth[at]^1 || !s.lies[d][at]) {
			return at
		}
	}
	return -1
}

// settle forgets the lies and changes of content that is proven or has gone.
func (s *blobServer) settle(kept []cache.KeptDraft) {
	s.mu.Lock()
	defer s.mu.Unlock()
	still := map[retention.Digest]bool{}
	for _, k := range kept {
		still[k.Digest] = true
	}
	maps.DeleteFunc(s.lies, func(d retention.Digest, _ map[int64]bool) bool { return !still[d] })
	maps.DeleteFunc(s.changed, func(d retention.Digest, _ bool) bool { return !still[d] })
}
