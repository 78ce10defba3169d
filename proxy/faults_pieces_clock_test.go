package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/proxy/metadata"
	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// A row of the table of what time does to pieces of a blob.
type clockStory struct {
	name    string
	happens func(c *clockOf)
	kept    string // what is there after the next start
	rest    string // what the whole, asked for then, is fetched with
}

func clockStories() []clockStory {
	return []clockStory{
		{name: "a piece is read, and the mirror is killed a minute later", happens: func(c *clockOf) {
			c.reads(2<<20, 1<<20)
			time.Sleep(time.Minute)
			c.kill()
		}, kept: "1 MiB", rest: "0-2 MiB, 3-6 MiB"},
		{name: "a piece is read, and the mirror is killed 20 seconds later", happens: func(c *clockOf) {
			c.reads(2<<20, 1<<20)
			time.Sleep(20 * time.Second)
			c.kill()
		}, kept: none, rest: "all"},
		{name: "a client waits for the rest of the whole, and the mirror is killed 20 seconds after the first half", happens: func(c *clockOf) {
			more := c.holds(3 << 20)
			c.begins()
			time.Sleep(20 * time.Second)
			c.kill(more)
		}, kept: "3 MiB", rest: "3-6 MiB"},
		{name: "a client waits for the rest of the whole, and gets none for 100 seconds; then the upstream goes on", happens: func(c *clockOf) {
			more := c.holds(3 << 20)
			c.begins()
			time.Sleep(100 * time.Second)
			c.goesOn(more)
			c.restart()
		}, kept: "all of it", rest: none},
		{name: "a client waits for the rest of the whole, and gets none for ten minutes: it is broken off after two, and the download ends; then the upstream goes on", happens: func(c *clockOf) {
			more := c.holds(3 << 20)
			c.begins()
			time.Sleep(10 * time.Minute)
			c.goesOn(more)
			c.restart()
		}, kept: "3 MiB", rest: "3-6 MiB"},
		{name: "everybody leaves in the middle of the whole, nothing more comes for two minutes, and the upstream goes on; later the mirror is killed", happens: func(c *clockOf) {
			more := c.holds(3 << 20)
			leave := c.begins()
			time.Sleep(5 * time.Second)
			leave()
			time.Sleep(2 * time.Minute)
			c.goesOn(more)
			c.kill()
		}, kept: "3 MiB", rest: "3-6 MiB"},
	}
}

// clockOf is a mirror over a cache on disk, with a clock that waits for nobody.
type clockOf struct {
	*testing.T
	origin  *mirrortest.Origin
	dir     string
	content []byte
	digest  pull.Digest
	m       mirrortest.Mirror
	store   *disk.Cache
}

func (c *clockOf) start() {
	c.Helper()
	store, err := disk.Open(c.dir, disk.Options{Journal: metadata.Durable(), VerifyEvery: time.Hour})
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { store.Close() })
	c.store = store
	c.m = mirrortest.New(c.T, c.origin, func(o *pulling.Options) { o.Blobs, o.Records = store.Blobs(), store.Records() })
}

// stop ends the mirror, and the answers that are held up with it.
func (c *clockOf) stop(held []chan struct{}) {
	c.Helper()
	synctest.Wait() // for requests that read it
	c.origin.Bodies = nil
	closed := make(chan struct{})
	go func() { defer close(closed); c.m.Close() }()
	synctest.Wait()
	for _, more := range held {
		close(more)
	}
	<-closed
	if err := c.store.Close(); err != nil {
		c.Error(err)
	}
}

func (c *clockOf) restart(held ...chan struct{}) {
	c.Helper()
	c.stop(held)
	c.start()
}

// kill starts a mirror on what the one before would leave if it was killed now.
func (c *clockOf) kill(held ...chan struct{}) {
	c.Helper()
	left := c.TempDir()
	if err := os.CopyFS(left, os.DirFS(c.dir)); err != nil {
		c.Fatal(err)
	}
	c.stop(held)
	c.dir = left
	c.start()
}

// holds makes the origin send n bytes of the whole. What comes after, once more
// is closed, is a broken connection.
func (c *clockOf) holds(n int) (more chan struct{}) {
	more = make(chan struct{})
	synctest.Wait() // for requests that read it
	c.origin.Bodies = func(_ string, _ pull.Digest, from int64, body []byte) io.ReadCloser {
		if from > 0 {
			return io.NopCloser(stuck{more})
		}
		return io.NopCloser(io.MultiReader(bytes.NewReader(body[:n]), stuck{more}))
	}
	return more
}

// goesOn makes the origin send again what it is asked for. Who still wants what
// was held up asks again.
func (c *clockOf) goesOn(more chan struct{}) {
	synctest.Wait() // for requests that read it
	c.origin.Bodies = nil
	close(more)
	time.Sleep(time.Minute)
}

// stuck is a body that waits, and then breaks.
type stuck struct{ more <-chan struct{} }

func (s stuck) Read([]byte) (int, error) {
	<-s.more
	return 0, fmt.Errorf("%w: a broken connection", upstream.ErrUnavailable)
}

// begins reads the whole until the client leaves.
func (c *clockOf) begins() (leave func()) {
	c.Helper()
	ctx, leave := context.WithCancel(c.Context())
	b, err := c.m.Blob(ctx, mirrortest.App, c.digest, pull.Want{})
	if err != nil {
		c.Fatal(err)
	}
	go func() {
		defer b.Close()
		_, _ = b.WriteRange(ctx, io.Discard, 0, -1) // it leaves, or the mirror does
	}()
	return leave
}

// reads reads a piece.
func (c *clockOf) reads(off, n int64) {
	c.Helper()
	part := pull.Span{From: off, To: off + n}
	b, err := c.m.Blob(c.Context(), mirrortest.App, c.digest, pull.Want{Parts: func(int64) []pull.Span { return []pull.Span{part} }})
	if err != nil {
		c.Fatal(err)
	}
	defer b.Close()
	var got bytes.Buffer
	if _, err := b.WriteRange(c.Context(), &got, off, n); err != nil || !bytes.Equal(got.Bytes(), c.content[off:off+n]) {
		c.Errorf("a piece: %d bytes, or others: %v", got.Len(), err)
	}
}

// asked says what the origin was asked for of the blob.
func (c *clockOf) asked() string {
	var all []string
	for _, line := range c.origin.Transcript() {
		words := strings.Fields(line) // method, "blob", repository, digest and perhaps offset+length
		said := "all"
		if len(words) == 5 {
			var from, n int64
			if _, err := fmt.Sscanf(words[4], "%d+%d", &from, &n); err != nil {
				c.Errorf("%q: %v", line, err)
			}
			said = fmt.Sprintf("bytes=%d-", from)
			if n >= 0 {
				said += fmt.Sprint(from + n - 1)
			}
			said = rangeText(said)
		}
		all = append(all, said)
	}
	if len(all) == 0 {
		return none
	}
	return strings.Join(all, ", ")
}

// clockLines runs the rows.
func clockLines(t *testing.T) string {
	var lines faultLines
	t.Run("clock", func(t *testing.T) {
		for i, row := range clockStories() {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) { runClock(t, row, dir) })
			})
			lines.add(i, row.name, row.kept, row.rest)
		}
	})
	return "\nThe same with time between. A download that nobody waits for ends if it gets next to nothing for a minute; pieces are made durable when nobody has read them for half " +
		"a minute, and a download of the whole every 15 seconds.\n\n" +
		lines.table("what happens", "there after the next start", "the whole is fetched with")
}

func runClock(t *testing.T, row clockStory, dir string) {
	c := &clockOf{T: t, origin: mirrortest.NewOrigin(), dir: dir, content: mirrortest.Bytes(14, rangedSize)}
	c.digest = c.origin.Put("app", "layer", c.content).Digest
	c.start()
	row.happens(c)
	hold := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	kept := none
	if k, ok := c.store.Blobs().Kept(c.digest); ok {
		kept = sizeText(k.Bytes)
	} else if c.m.HasContent(c.digest) {
		kept = "all of it"
	}
	hold("there is", kept, row.kept)
	c.origin.Transcript()
	if err := c.m.Read(t.Context(), mirrortest.App, c.digest); err != nil {
		t.Errorf("the whole: %v", err)
	}
	hold("it is fetched with", c.asked(), row.rest)
	synctest.Wait()
	if !c.m.HasContent(c.digest) {
		t.Error("the whole is not kept")
	}
}
