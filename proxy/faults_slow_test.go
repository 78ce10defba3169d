package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

const (
	slowSmall = 256 << 10
	slowLarge = 8 << 20 // so large that a range alone is fetched
	second    = time.Second
)

// A row of the table of upstreams that are slow: what is requested, and what
// comes of it at once, and at tries a minute, and three minutes and a half
// later.
type slowRow struct {
	upstream string
	slow     func(first, second *upstreamtest.Registry)
	asks     []slowAsk
	auth     upstreamtest.Auth
}

// slowAsk is what a client requests, what it sees at the three tries, and how
// many requests to the upstream that takes.
type slowAsk struct {
	what  string
	tries [3]string
	asked int
}

// Requests of clients.
const (
	aTag      = "tag"
	aManifest = "manifest by digest"
	aBlob     = "blob"
	aRange    = "range"
	aHead     = "blob, by `HEAD`"
	aTagHead  = "tag, by `HEAD`"
	aDigHead  = "manifest by digest, by `HEAD`"
	aList     = "list of tags"
	refs      = "list of referrers"
)

func slowRows() []slowRow {
	always := func(match string, f upstreamtest.Fault) func(first, _ *upstreamtest.Registry) {
		return func(first, _ *upstreamtest.Registry) { first.Always(match, f) }
	}
	same := func(tries [3]string, asked int, what ...string) (all []slowAsk) {
		for _, w := range what {
			all = append(all, slowAsk{w, tries, asked})
		}
		return all
	}
	once := func(match string, f upstreamtest.Fault) func(first, _ *upstreamtest.Registry) {
		return func(first, _ *upstreamtest.Registry) { first.Once(match, f) }
	}
	cached := []string{aTag, aManifest, aBlob, aRange}
	at := func(texts ...string) (tries [3]string) {
		copy(tries[:], texts)
		return tries
	}
	const late, whole = "504, after 18 s", "whole"
	in := func(seconds int) string { return fmt.Sprintf("whole, after %d s", seconds) }
	const stale, unknown = "whole, stale, after 2 s", "503, after 5 s"
	never := upstreamtest.Pause(32<<10, 24*time.Hour)
	token := upstreamtest.Auth{Scheme: "token", ExpiresIn: 3600}
	rows := []slowRow{
		{upstream: "answers after 15 s", slow: always("", upstreamtest.Slow(15*second)), asks: slices.Concat(
			same(at(in(15), whole, whole), 1, cached...), same(at(in(15), stale, stale), 3, aHead), same(at(in(15), whole, whole), 1, aTagHead, aDigHead, aList), same(at(unknown, unknown, unknown), 9, refs))},
		{upstream: "answers after 45 s", slow: always("", upstreamtest.Slow(45*second)), asks: slices.Concat(
			same(at(late, whole, whole), 1, cached...), same(at(late, whole, stale), 2, aHead), same(at(late, whole, whole), 1, aTagHead, aDigHead, aList), same(at(unknown, "503", unknown), 10, refs))},
		{upstream: "answers after 90 s", slow: always("", upstreamtest.Slow(90*second)), asks: slices.Concat(
			same(at(late, late, whole), 2, cached...), same(at(late, late, whole), 2, aHead, aTagHead, aDigHead, aList), same(at(unknown, "503", "503"), 7, refs))},
		{upstream: "never answers", slow: always("", upstreamtest.Silent()), asks: append(same(at(late, late, late), 4, append(cached, aHead, aTagHead, aDigHead, aList)...), same(at(unknown, "503", unknown), 6, refs)...)},
		{upstream: "is silent for 20 s in the middle of an answer, once", slow: once("GET", upstreamtest.Pause(300, 20*second)), asks: slices.Concat(
			same(at(late, whole, whole), 1, aTag, aManifest), same(at(in(15), whole, whole), 2, aBlob, aRange))},
		{upstream: "is silent for 70 s in the middle of an answer, once", slow: once("GET", upstreamtest.Pause(300, 70*second)), asks: slices.Concat(
			same(at(late, whole, whole), 2, aTag, aManifest), same(at(in(15), whole, whole), 2, aBlob, aRange))},
		{upstream: "is silent for 20 s in the middle of each answer", slow: always("GET blobs", upstreamtest.Pause(32<<10, 20*second)), asks: same(at(in(35), whole, whole), 2, aBlob, aRange)},
		{upstream: "is silent for 70 s in the middle of each answer", slow: always("GET blobs", upstreamtest.Pause(32<<10, 70*second)), asks: same(at(in(240), whole, whole), 8, aBlob)},
		{upstream: "is silent for ever in the middle of each answer", slow: always("GET blobs", never), asks: same(at(in(240), whole, whole), 8, aBlob)},
		{upstream: "sends a little, and is silent for ever; from then on it answers after 100 s", slow: func(first, _ *upstreamtest.Registry) {
			first.Once("GET blobs", upstreamtest.Combine(upstreamtest.Pause(300, 5*second), upstreamtest.Pause(600, 24*time.Hour)))
			first.Always("GET blobs", upstreamtest.Slow(100*second))
		}, asks: same(at(broken+", after 125 s", in(55), whole), 3, aBlob)},
		{upstream: "has no ranges, and is silent for 20 s in the middle of each answer", slow: always("GET blobs", upstreamtest.NoRange(upstreamtest.Pause(32<<10, 20*second))), asks: slices.Concat(
			same(at(in(20), whole, whole), 2, aBlob), same(at(late, whole, whole), 1, aRange))},
		{upstream: "has a token server that answers after 15 s", auth: token, slow: always("GET token", upstreamtest.Slow(15*second)), asks: slices.Concat(same(at(in(15), whole, whole), 3, cached...), same(at(in(15), whole, whole), 3, aList))},
		{upstream: "has a token server that answers after 45 s", auth: token, slow: always("GET token", upstreamtest.Slow(45*second)), asks: slices.Concat(same(at(late, whole, whole), 3, cached...), same(at(late, whole, whole), 3, aList))},
	}
	for _, first := range []struct {
		how  string
		slow upstreamtest.Fault
	}{{"answers after 45 s", upstreamtest.Slow(45 * second)}, {"never answers", upstreamtest.Silent()}} {
		rows = append(rows, slowRow{upstream: "has a first endpoint that " + first.how, slow: always("", first.slow), asks: slices.Concat(
			same(at(in(8), whole, whole), 2, cached...), same(at(in(8), stale, stale), 6, aHead), same(at(in(8), whole, whole), 2, aList))})
	}
	return rows
}

// slowWorld is a whole entrepot and its upstream, with all their waits, within
// the process.
type slowWorld struct {
	*enclosed
	t       *testing.T
	net     upstreamtest.Network
	fakes   []*upstreamtest.Registry
	digests map[string]digest.Digest
	content map[string][]byte
}

func newSlowWorld(t *testing.T, dir string, endpoints int, auth upstreamtest.Auth) *slowWorld {
	t.Helper()
	w := &slowWorld{t: t}
	for range endpoints {
		fake := upstreamtest.New(t, upstreamtest.WithNetwork(&w.net), upstreamtest.WithReferrers(), upstreamtest.WithAuth(auth))
		small, large := upstreamtest.Bytes(1, slowSmall), upstreamtest.Bytes(2, slowLarge)
		manifest, m := fake.AddImage("app", "1", small, large)
		w.digests = map[string]digest.Digest{aManifest: manifest.Digest, aBlob: m.Layers[0].Digest, aRange: m.Layers[1].Digest}
		w.content = map[string][]byte{aTag: fake.BodyOf("app", "1"), aManifest: fake.BodyOf("app", "1"), aBlob: small, aRange: large[1<<20 : 2<<20]}
		w.fakes = append(w.fakes, fake)
	}
	w.enclosed = newEnclosed(t, &w.net, dir, pull.Rules{TagTTL: 10 * time.Minute, ReferrersTTL: 10 * time.Minute, NegativeTTL: 30 * second, MaxWait: 2 * second},
		enclosedUpstream{name: "hub.test", endpoints: w.fakes})
	return w
}

// ask requests something, and says what the client sees, and when.
func (w *slowWorld) ask(what string) string {
	w.t.Helper()
	method, path, header := http.MethodGet, "", ""
	switch what {
	case aTag:
		path = "/v2/app/manifests/1"
	case aManifest:
		path = "/v2/app/manifests/" + w.digests[aManifest].String()
	case aBlob:
		path = "/v2/app/blobs/" + w.digests[aBlob].String()
	case aRange:
		path, header = "/v2/app/blobs/"+w.digests[aRange].String(), "bytes=1048576-2097151"
	case aTagHead:
		method, path = http.MethodHead, "/v2/app/manifests/1"
	case aDigHead:
		method, path = http.MethodHead, "/v2/app/manifests/"+w.digests[aManifest].String()
	case aHead:
		method, path = http.MethodHead, "/v2/app/blobs/"+w.digests[aBlob].String()
	case aList:
		path = "/v2/app/tags/list"
	case refs:
		path = "/v2/app/referrers/" + w.digests[aManifest].String()
	}
	began := time.Now()
	req, err := http.NewRequestWithContext(w.t.Context(), method, "http://mirror.test"+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if header != "" {
		req.Header.Set("Range", header)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	if told := time.Since(began); told >= 20*time.Second {
		w.t.Errorf("the status came after %s", told)
	}
	body, err := io.ReadAll(resp.Body)
	sees := fmt.Sprint(resp.StatusCode)
	want, known := w.content[what]
	switch {
	case err != nil:
		sees = broken
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent:
	case known && bytes.Equal(body, want), !known:
		sees = "whole"
	default:
		sees += ", wrong"
	}
	if strings.HasPrefix(resp.Header.Get("Warning"), "110 ") {
		sees += ", stale"
	}
	// What is resumed several times waits a little longer each time, at random.
	took := time.Since(began).Round(second)
	if took > 100*second {
		took = took.Round(5 * second)
	}
	if took > 0 {
		sees += fmt.Sprintf(", after %d s", int(took.Seconds()))
	}
	return sees
}

func slowFaults(t *testing.T) string {
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, row := range slowRows() {
			for j, ask := range row.asks {
				t.Run(row.upstream+", "+ask.what, func(t *testing.T) {
					t.Parallel()
					dir := t.TempDir()
					var tries [3]string
					asked := 0
					synctest.Test(t, func(t *testing.T) { tries, asked = runSlow(t, row, ask, dir) })
					if tries != ask.tries || asked != ask.asked {
						t.Errorf("%q and %d requests, want %q and %d", tries, asked, ask.tries, ask.asked)
					}
					lines.add(100*i+j, row.upstream, ask.what, tries[0], tries[1], tries[2], fmt.Sprint(asked))
				})
			}
		}
	})
	return "## Upstreams that are slow\n\nWith all waits as they are by default. A client is told within 20 s; what it has asked for goes on.\n\n" +
		lines.table("the upstream", "for a", "the client sees", "at a try 60 s later", "at a try 210 s later", "requests to the upstream")
}

func runSlow(t *testing.T, row slowRow, ask slowAsk, dir string) (tries [3]string, asked int) {
	endpoints := 1
	if strings.Contains(row.upstream, "endpoint") {
		endpoints = 2
	}
	w := newSlowWorld(t, dir, endpoints, row.auth)
	row.slow(w.fakes[0], w.fakes[len(w.fakes)-1])
	began := time.Now()
	for i, after := range []time.Duration{0, 60 * second, 210 * second} {
		time.Sleep(time.Until(began.Add(after)))
		tries[i] = w.ask(ask.what)
	}
	time.Sleep(10 * time.Minute) // whatever goes on ends
	for _, fake := range w.fakes {
		asked += len(fake.Transcript())
	}
	return tries, asked
}
