package proxy_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// Issue 12, point 14: a client that wishes a new answer does not get that of a
// check which another client's question has begun, and for which an older answer
// would do.
func TestAWishForANewListDoesNotTakeTheAnswerOfAnothersCheck(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newReferringWorld(t, dir, referringRow{options: func(o *pulling.Options) { o.Upstreams[0].CosignTags = true }})
		signature := w.tag() + ".sig"
		// The registry has a cache before it, which takes its time.
		w.always("manifests app "+signature, func(r *upstreamtest.Registry, rw http.ResponseWriter, req *http.Request, q upstreamtest.Request) {
			most, err := strconv.Atoi(strings.TrimPrefix(req.Header.Get("Cache-Control"), "max-age="))
			if err != nil || most < 40 {
				r.Answer(rw, req, q)
				return
			}
			time.Sleep(second)
			rw.Header().Set("Age", "40") // too old to be remembered
			upstreamtest.Status(http.StatusNotFound, "MANIFEST_UNKNOWN")(r, rw, req, q)
		})
		// So that the list is not made before another client has asked again.
		w.always(theAPI, upstreamtest.Slow(2*second))
		others := make(chan int)
		for _, at := range []time.Duration{0, 2 * second} {
			go func() {
				time.Sleep(at)
				status, _, _ := w.get("/v2/app/manifests/" + signature)
				others <- status
			}()
		}
		time.Sleep(second / 2)
		made, m := w.fakes[0].AddImage(referringRepo, signature, []byte("signature"))
		made.ArtifactType, made.Annotations = "application/vnd.dev.cosign.artifact.sig.v1+json", m.Annotations
		w.hangs = append(w.hangs, made)
		if sees := w.ask(byAPI, "Cache-Control", "no-cache"); sees != "known, 1 of 1" {
			t.Errorf("it sees %q", sees)
		}
		if status := <-others; status != http.StatusNotFound {
			t.Errorf("the other client's answer is %d: it did not ask before", status)
		}
		<-others
	})
}
