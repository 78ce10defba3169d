package pull

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// A source is one place where referrers are listed. It says what it knows in one
// of four ways, and never fails: what it could not find out is part of its
// answer. [referrers.MergeAnswers] decides what follows.
type source interface {
	answer(ctx context.Context, q *question) referrers.Answer
}

// question is a subject about which every source is asked.
type question struct {
	upstream Upstream
	repo     Repository
	subject  Digest
	began    time.Time
	// oldest is the time of the oldest remembered answer that will do.
	oldest time.Time
	renew  renewal // what a client wishes
	// attached are the entries that indexes attach to the subject.
	attached []Descriptor
	budget   *budget // for the manifests that are opened
}

// sources are the sources that are asked at the same time: the API and the tag
// of each endpoint, what indexes attach, and cosign's tags where the
// configuration says so. What passed through is asked when these have answered.
func (p *Puller) sources(u Upstream) []source {
	var all []source
	for i, endpoint := range u.Endpoints {
		all = append(all, parent{apiSource{p, endpoint, i}}, parent{tagSource{p, endpoint, len(u.Endpoints) == 1}})
	}
	all = append(all, buildKitSource{p})
	if u.CosignTags {
		all = append(all, cosignSource{p})
	}
	return all
}

// kindOf is the kind of a source.
func kindOf(s source) referrers.Kind {
	switch s := s.(type) {
	case parent:
		return kindOf(s.of)
	case tagSource:
		return referrers.FromTag
	case buildKitSource:
		return referrers.FromBuildKit
	case cosignSource:
		return referrers.FromCosign
	case passedThrough:
		return referrers.FromSeen
	}
	return referrers.FromAPI
}

// cannotTell is the answer of a source that fails.
func cannotTell(of referrers.Kind, err error) referrers.Answer {
	return referrers.Answer{Of: of, Err: err, Refused: isRefusal(err)}
}

// isRefusal says whether an upstream refuses access.
func isRefusal(err error) bool { return errors.Is(err, upstream.ErrDenied) }

// errPending is the error of a source that has not answered yet.
var errPending = fmt.Errorf("%w: it has not answered yet", upstream.ErrTimeout)

// errUnreadable means that a source lists a manifest that could not be read:
// the known list is certainly incomplete.
var errUnreadable = errors.New("a listed referrer cannot be read")
