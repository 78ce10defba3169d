package pull

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
)

// withoutRoom are blobs of a disk that is full.
type withoutRoom struct{ cache.Blobs }

func (withoutRoom) Create(context.Context, Descriptor) (cache.Draft, error) {
	return nil, cache.ErrFull
}

// A manifest that can't be written is passed on all the same, so that it came
// says nothing of whether it is kept.
func TestWithAFullDiskTheSameIsNotLearntAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		a := o.attested("1")
		m := newMirror(t, o, func(opts *Options) { opts.Blobs = withoutRoom{opts.Blobs} })
		m.learning(t)
		m.pull(t, a, "1", 0)
		o.transcript()
		time.Sleep(time.Hour)
		if asked := o.transcript(); len(asked) == 0 || len(asked) > 10 {
			t.Errorf("in an hour it was asked %d times", len(asked))
		}
	})
}
