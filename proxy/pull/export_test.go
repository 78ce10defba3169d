package pull

import (
	"net/url"

	"github.com/entrepot/entrepot/upstream"
)

// What tests of package pull_test need of its inside.
var (
	ManifestType  = manifestType
	SignedPayload = signedPayload
	NewLists      = newTagPages
)

const (
	UsualPatience = defaultPatience
	MaxLookup     = maxLookup
	MaxManifest   = maxManifest
	SignedSchema1 = signedSchema1
	BareSchema1   = bareSchema1
)

func (l *tagPages) Page(repo Repository, asked url.Values, got upstream.TagList) (all []string, whole bool) {
	return l.add(repo, asked, got)
}

// SetOffline changes what the configuration says; nothing is under way.
func (p *Puller) SetOffline(offline bool) { p.rules.Offline = offline }

func (p *Puller) LookupsUnderWay() int {
	p.lookups.mu.Lock()
	defer p.lookups.mu.Unlock()
	return len(p.lookups.byKey)
}
