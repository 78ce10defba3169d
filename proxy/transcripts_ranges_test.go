package proxy_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// arriving tells of each request with a Range that arrives at the mirror.
func arriving(n int) (setup, <-chan struct{}) {
	arrived := make(chan struct{}, n)
	return setup{wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				arrived <- struct{}{}
			}
			next.ServeHTTP(w, r)
		})
	}}, arrived
}

// TestF38AtAnUpstreamWithoutRangesARangeWaitsForTheFill asks for pieces far ahead
// of a download at an upstream that answers a Range with everything, as Gitea
// does. No client may get that.
func TestF38AtAnUpstreamWithoutRangesARangeWaitsForTheFill(t *testing.T) {
	more := make(chan struct{})
	s, arrived := arriving(10)
	l, fake := newLazyLayer(t, more, s)
	fake.Mend()
	fake.Always("GET blobs", func(r *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, q upstreamtest.Request) {
		upstreamtest.NoRange(nil)(r, &pausing{w, come, more, req}, req, q)
	})
	l.piece("bytes=0-1", section{0, 1})
	<-arrived
	l.m.wantAsked(l.line("GET", "bytes=0-1"))

	later, rest := section{lazySize / 2, lazySize/2 + 99}, section{lazySize - 3<<20, lazySize - 1}
	several := []section{{lazySize - 2<<20, lazySize - 2<<20 + 99}, {lazySize - 1<<20, lazySize - 1<<20 + 99}}
	var all sync.WaitGroup
	all.Go(func() { l.piece(later.asRange(), later) })
	all.Go(func() { l.piece(fmt.Sprintf("bytes=%d-", rest[0]), rest) }) // without an end, as containerd asks (F3)
	all.Go(func() { l.pieces(several...) })
	for range 3 {
		<-arrived
	}
	close(more) // before that the upstream has sent nobody any of it
	all.Wait()
	l.m.wantAsked() // the first answer was the whole, and everybody waits for it
	// Kept, they are the same.
	l.whole()
	l.piece(later.asRange(), later)
	l.pieces(several...)
	l.m.wantAsked()
}

// TestF3WhatWas206StaysThat loses a blob of which pieces were read, and its
// upstream then neither tells its size nor has ranges: the next piece is a piece
// all the same.
func TestF3WhatWas206StaysThat(t *testing.T) {
	more := make(chan struct{})
	close(more)
	l, fake := newLazyLayer(t, more, setup{})
	later, rest := section{lazySize / 2, lazySize/2 + 99}, section{lazySize - 2<<20, lazySize - 1}
	read := func() {
		t.Helper()
		l.piece("bytes=0-", section{0, lazySize - 1})
		l.piece(later.asRange(), later)
		l.piece("bytes=-2097152", rest)
		l.pieces(later, rest)
	}
	read()
	l.m.wantAsked(l.line("GET", ""))
	for name, fault := range map[string]upstreamtest.Fault{
		"no size, and no ranges": upstreamtest.Combine(upstreamtest.NoRange(nil), upstreamtest.Chunked()),
		"no size":                upstreamtest.Chunked(),
		"no ranges":              upstreamtest.NoRange(nil),
	} {
		t.Run(name, func(t *testing.T) {
			fake.Mend()
			fake.Always("GET blobs", fault)
			l.t, l.m = t, newMirror(t, fake, setup{}) // with nothing
			if a := l.m.get("/v2/app/manifests/1"); a.status != http.StatusOK {
				t.Fatalf("the manifest: %d", a.status)
			}
			l.m.wantAsked("GET manifests app 1")
			read()
			l.m.wantAsked(l.line("GET", ""))
		})
	}
}

// TestF4F5AThousandRangesOfABlobInFlightAreOneAnswer asks as podman does for a
// zstd:chunked layer, two ranges and then the holes, and for as many as there
// may be, in no order and over each other.
func TestF4F5AThousandRangesOfABlobInFlightAreOneAnswer(t *testing.T) {
	const near = 4 << 20 // of which most is yet to come
	overlapping := func(n, size int) (all []section) {
		for i := range n {
			at := (i * 7919 * 512) % (near - size)
			all = append(all, section{at, at + size - 1})
		}
		return all
	}
	for name, holes := range map[string][]section{
		"600 holes":                       small(0, near, 600),
		"1,024 over each other, unsorted": overlapping(1024, 10_000),
	} {
		t.Run(name, func(t *testing.T) {
			more := make(chan struct{})
			s, arrived := arriving(10)
			l, fake := newLazyLayer(t, more, s)
			l.pieces(section{0, 999}, section{5000, 5999})
			<-arrived
			l.m.wantAsked(l.line("GET", "bytes=0-5999"))
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() { l.pieces(holes...) })
			}
			for range 3 {
				<-arrived
			}
			close(more)
			all.Wait()
			for range 3 {
				l.pieces(holes...) // again, of the draft
			}
			l.whole()
			fake.Transcript()
			l.pieces(holes...) // of the kept one
			l.m.wantAsked()
			l.m.stop()
			fake.Stop()
			if got := fake.BlobBytes(); got > lazySize+lazySize/64 {
				t.Errorf("%d bytes crossed, and the layer has %d", got, lazySize)
			}
		})
	}
}
