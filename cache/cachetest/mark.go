package cachetest

import (
	"testing"

	"github.com/entrepot/entrepot/cache"
)

func testMark(t *testing.T, blobs cache.Blobs) {
	last := ""
	want := func(after string, other bool) {
		t.Helper()
		for range 2 {
			mark := blobs.Mark(t.Context())
			if mark == "" || (mark != last) != other {
				t.Errorf("after %s, the mark is %q, and was %q", after, mark, last)
			}
			last, other = mark, false
		}
	}
	want("the start", true)
	one, d := content(1, 10)
	publish(t, blobs, d, one)
	want("a publication", true)
	two, e := content(2, 10)
	publish(t, blobs, e, two)
	want("another", true)
	file, err := blobs.Open(t.Context(), d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Check(t.Context(), 0, 10); err != nil {
		t.Error(err)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	want("a read", false)
	if err := blobs.Delete(t.Context(), e.Digest); err != nil {
		t.Error(err)
	}
	want("a deletion", true)
}
