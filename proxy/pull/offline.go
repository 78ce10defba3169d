package pull

import (
	"context"
	"net/url"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
)

// An upstream that is offline is never asked: what is kept is all that there is.
// What is not kept is said to be so at once. Whether there is something where
// nothing says so is not known, and that is said too: unknown is not none.

var (
	// ErrOffline means that something is not kept, and that the configuration
	// forbids asking the upstream for it. It says nothing of the upstream.
	ErrOffline error = &offlineError{"offline, and not kept here"}
	// ErrOfflineUnknown means that nothing here says whether there is something,
	// and that the configuration forbids asking the upstream. It is an ErrOffline.
	ErrOfflineUnknown error = &offlineError{"offline, and nothing that is kept here says whether there is any"}
)

// offlineError is an upstream.ErrUnavailable whose text does not say that an
// upstream has failed.
type offlineError struct{ text string }

func (e *offlineError) Error() string { return e.text }

func (e *offlineError) Is(target error) bool {
	return target == upstream.ErrUnavailable || target == ErrOffline
}

// goOffline makes an upstream one that is never asked: whatever is forgotten
// elsewhere, there is nothing to ask with.
func (u Upstream) goOffline() Upstream {
	u.Offline, u.Registry, u.Endpoints = true, neverAsked{}, []upstream.Endpoint{neverAsked{}}
	return u
}

// offlineTag answers for a tag that is not kept.
func (p *Puller) offlineTag(repo Repository, tag string) error {
	switch {
	case !isReferrersTag(tag):
		return ErrOffline
	case p.isKeptAbsent(repo, tag):
		return p.keptAbsence(repo, tag)
	}
	return ErrOfflineUnknown
}

// isCarried says whether the answer about the referrers of a subject that was
// given at a time was imported together with it: then it is all that there is.
// With an answer whose time is not known a lookup is due, so it may lack some.
func (p *Puller) isCarried(repo Repository, subject Digest, answer metadata.Listed) bool {
	return answer.Imported && !answer.At.IsZero() && p.ledger.HasManifest(repo, subject)
}

// neverAsked is an endpoint that opens no connection.
type neverAsked struct{}

func (neverAsked) Resolve(context.Context, string, string) (Descriptor, error) {
	return Descriptor{}, ErrOffline
}

func (neverAsked) Manifest(context.Context, string, string) (upstream.Content, error) {
	return upstream.Content{}, ErrOffline
}

func (neverAsked) ResolveBlob(context.Context, string, Digest) (Descriptor, error) {
	return Descriptor{}, ErrOffline
}

func (neverAsked) Blob(context.Context, string, Digest, int64, int64) (upstream.Content, error) {
	return upstream.Content{}, ErrOffline
}

func (neverAsked) Referrers(context.Context, string, Digest) (upstream.ReferrersList, error) {
	return upstream.ReferrersList{}, ErrOfflineUnknown
}

func (neverAsked) Tags(context.Context, string, url.Values) (upstream.TagList, error) {
	return upstream.TagList{}, ErrOfflineUnknown
}
