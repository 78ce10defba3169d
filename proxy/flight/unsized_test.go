package flight_test

import (
	"bytes"
	"testing"
	"testing/synctest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
)

// TestContentThatMayHaveNoEndIsCountedAsItComes: what gives no size could fill
// the disk before anybody knows how large it is.
func TestContentThatMayHaveNoEndIsCountedAsItComes(t *testing.T) {
	for name, c := range map[string]struct {
		size      int
		announced int64
		most      int64 // that the sink takes of all downloads
		grown     int   // times
		kept      bool
	}{
		"small":                      {4 * mib, -1, 1, 0, true},
		"larger":                     {13 * mib, -1, 64 * mib, 3, true},
		"more than there is room":    {13 * mib, -1, 6 * mib, 1, false},
		"a manifest gives it":        {13 * mib, 13 * mib, 64 * mib, 0, true},
		"a manifest gives too small": {13 * mib, 2 * mib, 8 * mib, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{content: bytesOf(1, c.size), noLength: true}
				sink := newTestSink(memory.New())
				sink.most = c.most
				g := newGroup(t, sink)
				want := cache.Descriptor{Digest: s.want().Digest, Size: c.announced}
				got, err := g.read(want, s.start())
				if err != nil || !bytes.Equal(got, s.content) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				synctest.Wait()
				if len(sink.grown) != c.grown || sink.expected != 0 || sink.has(want.Digest) != c.kept {
					t.Errorf("it grew by %v, %d bytes are still expected, cached: %v", sink.grown, sink.expected, sink.has(want.Digest))
				}
			})
		})
	}
}
