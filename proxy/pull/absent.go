package pull

import (
	"fmt"
	"time"

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// A "no" is part of what was pulled: with everything kept, a client that asks for
// a tag which need not exist fails over an error, and goes on with a 404. While
// an upstream can't be reached, its last word that there is no such tag stands in
// for that, as long as [metadata.Ledger.IsAbsent] says, with a warning. It never
// stands in for a refusal or a limit: those are answers.

// keepAbsence keeps the upstream's word that a tag does not exist. That of the
// tag of all referrers is in their list.
func (p *Puller) keepAbsence(repo Repository, tag string, said time.Time) {
	if _, isList := referrers.SubjectOf(tag); !isList {
		p.ledger.PutAbsent(repo, tag, said)
	}
}

// isKeptAbsent says whether the upstream's last word is that a tag does not
// exist. Of the tag of all referrers, their list is that word.
func (p *Puller) isKeptAbsent(repo Repository, tag string) bool {
	if _, isList := referrers.SubjectOf(tag); isList {
		return false
	}
	return p.ledger.IsAbsent(repo, tag)
}

// keptAbsence is what is said then.
func (p *Puller) keptAbsence(repo Repository, tag string) error {
	return &StaleError{fmt.Errorf("%w: %s had no tag %s when the upstream could last be asked", upstream.ErrNotFound, repo, tag)}
}
