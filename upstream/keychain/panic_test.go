package keychain

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/entrepot/entrepot/limits/panics"
)

// TestAPanicOfAHelpersTaskCostsThat (13.1): whoever needs the login gets an
// error, and the helper is asked again as after any other failure.
func TestAPanicOfAHelpersTaskCostsThat(t *testing.T) {
	inTime(t, func(t *testing.T) {
		var told atomic.Int64
		panics.Handle(func(string, any, []byte) { told.Add(1) })
		defer panics.Handle(nil)
		h := newHelped(t, oneHelper, "quay.io", "quay.io")
		h.set(func() { h.panics = true })
		if c, _, err := h.ask(t); err == nil || errors.Is(err, errClosed) || told.Load() != 1 {
			t.Errorf("got %+v, %v, and %d panics were told of", c, err, told.Load())
		}
		h.set(func() { h.panics = false })
		time.Sleep(helperRetry)
		if c, _, err := h.ask(t); err != nil || c != h.creds {
			t.Errorf("then got %+v, %v", c, err)
		}
	})
}
