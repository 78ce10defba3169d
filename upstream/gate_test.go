package upstream

import (
	"testing"
	"testing/synctest"
	"time"
)

// A list of referrers and the manifests that it names are requested side by
// side: only the probe would be answered.
func TestAGateThatNobodyHasComeToForAMinuteIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for after, probes := range map[time.Duration]bool{20 * time.Second: true, 70 * time.Second: true, 81 * time.Second: false} {
			now := time.Now()
			g := gate{until: now.Add(20 * time.Second), probe: now.Add(20 * time.Second)}
			time.Sleep(after)
			if _, closed := g.closed(); closed {
				t.Errorf("after %s it is closed", after)
			}
			if got := g.pass(); got != probes {
				t.Errorf("after %s the request is a probe: %v, want %v", after, got, probes)
			}
			if _, closed := g.closed(); closed != probes {
				t.Errorf("after %s a second request beside it may pass: %v, want %v", after, !closed, !probes)
			}
		}
	})
}
