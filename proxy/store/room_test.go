package store

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/entrepot/entrepot/cache"
)

// A pass that had nothing to do says nothing of whether there is room to be
// made. Those who wait may not have taken yet what the pass before made.
func TestWhatFindsNoRoomGivesUpOnlyAfterAPassInVain(t *testing.T) {
	for name, c := range map[string]struct {
		vain  bool
		freed int64
		err   error
		waits bool // after the first pass
	}{
		"a pass in vain":                {vain: true, err: cache.ErrFull},
		"a pass that had nothing to do": {freed: 60, waits: true},
		"many passes that free nothing": {err: cache.ErrFull, waits: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRoom(Bounds{MaxBytes: 100}, func(n int64) int64 { return n }, nil)
				r.counted, r.used = true, 100
				admitted := make(chan error, 1)
				go func() { admitted <- r.waitAndReserve(t.Context(), "sha256:new", 50) }()
				synctest.Wait()
				r.endPass(r.beginPass(), c.vain)
				synctest.Wait()
				if waits := len(admitted) == 0; waits != c.waits {
					t.Errorf("after one pass it waits: %v", waits)
				}
				r.subtract(c.freed)
				for range maxPasses {
					r.endPass(r.beginPass(), false)
					synctest.Wait()
				}
				if err := <-admitted; !errors.Is(err, c.err) {
					t.Errorf("admitted: %v", err)
				}
			})
		})
	}
}
