package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// monthTTL is the mirror's tag_ttl and referrers_ttl.
	monthTTL = 3 * time.Second
	// monthSlack is how much later than that a client may have its answer.
	monthSlack = 2 * time.Second
	// monthStatus is how long a client may wait for a status, monthBody for all
	// of a body.
	monthStatus = 45 * time.Second
	monthBody   = 150 * time.Second
)

// monthClient asks a mirror, and holds what it sees against what there is.
type monthClient struct {
	world *monthWorld
	base  string
	http  *http.Client

	mu     sync.Mutex
	seen   map[string]int
	wrongs []string
}

func newMonthClient(w *monthWorld, base string) *monthClient {
	transport := &http.Transport{MaxIdleConnsPerHost: 16, ResponseHeaderTimeout: monthStatus}
	return &monthClient{world: w, base: base, http: &http.Client{Transport: transport}, seen: map[string]int{}}
}

func (c *monthClient) count(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[what]++
}

func (c *monthClient) wrong(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrongs = append(c.wrongs, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// monthAnswer is an answer that is complete.
type monthAnswer struct {
	body     []byte
	stale    bool
	from, to time.Time // of the exchange, until its status
}

// get asks for a path. It returns nil if there is no complete answer, which is
// judged here.
func (c *monthClient) get(path string) *monthAnswer {
	ctx, cancel := context.WithTimeout(context.Background(), monthBody)
	defer cancel()
	a := &monthAnswer{from: time.Now()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		c.wrong("%s: %v", path, err)
		return nil
	}
	resp, err := c.http.Do(req)
	a.to = time.Now()
	if err != nil {
		if !c.world.wasKilled(a.from, a.to) {
			c.wrong("%s: no answer after %s: %v", path, a.to.Sub(a.from), err)
		}
		c.count("no answer")
		time.Sleep(100 * time.Millisecond) // it is away
		return nil
	}
	defer resp.Body.Close()
	if took := a.to.Sub(a.from); took > monthStatus {
		c.wrong("%s: status %d after %s", path, resp.StatusCode, took)
	}
	a.stale = strings.HasPrefix(resp.Header.Get("Warning"), "110 ")
	a.body, err = io.ReadAll(resp.Body)
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		c.count("an error")
		return nil
	default:
		c.wrong("%s: status %d: %s", path, resp.StatusCode, a.body)
		return nil
	}
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			c.wrong("%s: the body is not there after %s", path, monthBody)
		}
		c.count("a broken body")
		return nil
	}
	if a.stale {
		c.count("a stale answer")
	}
	return a
}

// pull pulls an image, and asks what refers to it. It says whether it got all of
// it, and none of it stale.
func (c *monthClient) pull(image *monthImage) bool {
	tag := c.get(image.path + "/manifests/1")
	if tag == nil {
		return false
	}
	version, ok := c.judgeTag(image, tag)
	if !ok {
		return false
	}
	whole := !tag.stale
	for _, layer := range version.layers {
		path := image.path + "/blobs/" + layer.String()
		blob := c.get(path)
		if blob != nil && digest.FromBytes(blob.body) != layer {
			c.wrong("%s: a complete body of %d bytes is another", path, len(blob.body))
		}
		whole = whole && blob != nil
	}
	if whole {
		c.count("a whole image")
	}
	referrers := c.get(image.path + "/referrers/" + version.manifest.Digest.String())
	if referrers == nil {
		return false
	}
	c.judgeReferrers(image, version, referrers)
	return whole && !referrers.stale
}

// judgeTag says which version an answer is. Without a warning it is one that the
// tag pointed at within its time.
func (c *monthClient) judgeTag(image *monthImage, a *monthAnswer) (monthVersion, bool) {
	got := digest.FromBytes(a.body)
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	for _, v := range image.versions {
		if v.manifest.Digest != got {
			continue
		}
		if !a.stale && !v.held.overlaps(a.from.Add(-monthTTL-monthSlack), a.to) {
			c.wrong("%s: the tag pointed at %s until %s, without a warning at %s", image.path, got, v.held.to.Format("15:04:05.000"), a.from.Format("15:04:05.000"))
		}
		return v, true
	}
	c.wrong("%s: the tag never pointed at %s: %.200s", image.path, got, a.body)
	return monthVersion{}, false
}

// judgeReferrers holds a list without a warning against what is attached for
// longer than its time.
func (c *monthClient) judgeReferrers(image *monthImage, v monthVersion, a *monthAnswer) {
	var index ocispec.Index
	if err := json.Unmarshal(a.body, &index); err != nil || index.MediaType != ocispec.MediaTypeImageIndex {
		c.wrong("%s: a list of referrers is %.200s", image.path, a.body)
		return
	}
	listed := map[digest.Digest]ocispec.Descriptor{}
	for _, d := range index.Manifests {
		listed[d.Digest] = d
	}
	n := len(listed)
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	for _, other := range image.versions {
		if other.manifest.Digest == v.manifest.Digest {
			v = other // with what was attached since
		}
	}
	for _, r := range v.attached {
		got, ok := listed[r.Digest]
		if !ok && !a.stale && r.since.Before(a.from.Add(-monthTTL-monthSlack)) {
			c.wrong("%s: %s, attached at %s, is missing at %s without a warning; %d of %d are listed", image.path, r.Digest, r.since.Format("15:04:05.000"), a.from.Format("15:04:05.000"), n, len(v.attached))
		}
		if ok && !a.stale && got.Size != r.Size {
			c.wrong("%s: %s has %d bytes, and is listed with %d", image.path, r.Digest, r.Size, got.Size)
		}
		delete(listed, r.Digest)
	}
	for d := range listed {
		c.wrong("%s: %s is listed, and was never attached", image.path, d)
	}
}
