package pull

import (
	"time"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// standIn stands for the entries of a long list in a verdict that does not need
// them.
var standIn = []Descriptor{{}}

// conclude makes a verdict of the answers, whether all sources have answered or
// not, and what it tells a client.
//
// While an upstream is away each question ends here, with nothing but what is on
// record. A long list is then told as it is kept: to decode, merge and encode it
// for each question would cost many times as much.
func (p *Puller) conclude(repo Repository, subject Digest, answers []referrers.Answer) (referrers.Verdict, Referrers, error) {
	if rec, ok := p.ledger.Listed(repo, subject); ok && rec.Digest != "" && listsNothing(answers) {
		v := referrers.MergeAnswers(answers, referrers.Record{Known: true, List: standIn, At: rec.At}, nil)
		if v.Conclusion == referrers.Stale {
			answer, err := p.listed(p.work.Context(), repo, subject, rec)
			if err == nil {
				answer.Stale, answer.Partial, answer.At, answer.Outcome = true, v.Partial, time.Time{}, Stale
				return v, answer, nil
			}
		}
	}
	v := referrers.MergeAnswers(answers, p.recordOf(repo, subject), p.ledger.Seen(repo, subject))
	answer, err := answerOf(v)
	return v, answer, err
}

// listsNothing says whether no answer lists anything, be it only claimed.
func listsNothing(answers []referrers.Answer) bool {
	for _, a := range answers {
		if len(a.List) > 0 || len(a.Claims) > 0 {
			return false
		}
	}
	return true
}
