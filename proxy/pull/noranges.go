package pull

import (
	"time"

	"github.com/entrepot/entrepot/cache/memory"
)

const (
	// maxNoRanges is how many repositories are remembered whose upstream has
	// ignored a Range (F38), and noRangesFor for how long: as long as an endpoint
	// whose HEAD is of no use. The storage behind an upstream may differ from
	// one repository to another.
	maxNoRanges = 4 << 10
	noRangesFor = 10 * time.Minute
)

// noRanges are these repositories.
type noRanges = memory.Answers[Repository, struct{}]

func newNoRanges() *noRanges {
	all, err := memory.NewAnswers[Repository, struct{}](maxNoRanges)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return all
}

// HasRanges implements [flight.Observer].
func (s *blobSource) HasRanges(has bool) {
	if has {
		s.p.requests.noRanges.Delete(s.repo)
		return
	}
	s.p.requests.noRanges.Put(s.repo, struct{}{}, noRangesFor)
}

// hasNoRanges says whether the upstream has lately had no ranges of what the
// repository has.
func (s *blobSource) hasNoRanges() bool {
	_, known := s.p.requests.noRanges.Get(s.repo)
	return known
}
