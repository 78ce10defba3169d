package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// A mirror that is down must not be in the way: the configuration that it made
// leads runtimes on to the registry itself.
func TestRuntimesMoveOnWhereTheMirrorIsDown(t *testing.T) {
	s := newSuite(t)
	img := s.images[slices.IndexFunc(s.images, func(i image) bool { return i.registry == "registry.example" })]
	for _, r := range rows {
		if !r.movesOn {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			up := s.startUpstream(t, s.store)
			m := s.startMirror(t, up, time.Hour)
			c := r.start(t, s, m)
			m.stop(t)
			c.pull(t, img)
			c.check(t, img)
			asked := up.take()
			if len(asked) == 0 {
				t.Error("the upstream was not asked")
			}
			for _, q := range asked {
				if strings.HasPrefix(q.agent, agentPrefix) {
					t.Errorf("the mirror is not down: %s", q)
				}
			}
		})
	}
}
