package pull

import (
	"net/url"
	"sync"
	"time"

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// Exported for the tests in package pull_test.
var (
	NewLists = newTagPages
)

func ManifestType(header string, content []byte) string {
	return manifestType(header, referrers.Parse(content))
}

func SignedPayload(content []byte) []byte { return signedPayload(referrers.Parse(content)) }

const (
	UsualPatience = defaultPatience
	MaxLookup     = maxLookup
	MaxManifest   = maxManifest
	SignedSchema1 = signedSchema1
	BareSchema1   = bareSchema1
)

func (l *tagPages) Page(repo Repository, asked url.Values, got upstream.TagList) (all []string, whole bool) {
	all, _, whole = l.add(repo, asked, time.Now(), got)
	return all, whole
}

// SetOffline changes the configuration. Nothing may be under way.
func (p *Puller) SetOffline(offline bool) {
	for name, u := range p.upstreams {
		if offline {
			online.Store(p, u)
			p.upstreams[name] = u.goOffline()
		} else if before, ok := online.Load(p); ok {
			p.upstreams[name] = before.(Upstream)
		}
	}
}

// online are the upstreams of those that SetOffline was called for: each has one.
var online sync.Map

func (p *Puller) LookupsUnderWay() int {
	p.lookups.mu.Lock()
	defer p.lookups.mu.Unlock()
	return len(p.lookups.byKey)
}
