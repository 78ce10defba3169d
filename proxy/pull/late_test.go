package pull

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/entrepot/entrepot/upstream"
)

func TestLateAnswersAreBoundedInBytes(t *testing.T) {
	longTags := make([]string, 1000)
	for i := range longTags {
		longTags[i] = strings.Repeat("t", 8<<10)
	}
	for name, row := range map[string]struct {
		late lateAnswer
		want int // of ten
	}{
		"manifests of 8 MiB":         {lateAnswer{value: Manifest{Bytes: make([]byte, maxManifest)}}, 3},
		"small manifests":            {lateAnswer{value: Manifest{Bytes: make([]byte, 1<<10)}}, 10},
		"tag lists of 8 MiB":         {lateAnswer{value: upstream.TagList{Tags: longTags}}, 4},
		"what is not there":          {lateAnswer{value: upstream.TagList{}, err: fmt.Errorf("%w", upstream.ErrNotFound)}, 10},
		"what is as good as nothing": {lateAnswer{value: Descriptor{}}, 10},
	} {
		s := newShared(true)
		for i := range 10 {
			s.keep(fmt.Sprint(i), time.Now().Add(-time.Minute), Rules{Wait: time.Second, NegativeTTL: time.Minute}, row.late)
		}
		var kept []string
		for i := range 10 {
			if a, ok := s.late.Get(fmt.Sprint(i)); ok && errors.Is(a.err, row.late.err) {
				kept = append(kept, fmt.Sprint(i))
			}
		}
		if len(kept) != row.want || kept[len(kept)-1] != "9" {
			t.Errorf("%s: %v are kept, want the last %d", name, kept, row.want)
		}
	}
}
