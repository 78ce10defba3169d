package pull

import (
	"context"
	"errors"

	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
)

// blobSource is a blob as one repository has it: where a download gets it from,
// and what has to be remembered of that repository as the download goes on.
type blobSource struct {
	p      *Puller
	u      Upstream
	repo   Repository
	digest Digest
}

// through is the repository whose request started a download.
func through(f *flight.Flight) Repository { return f.Source().(*blobSource).repo }

// start says how a download from this source starts.
func (s *blobSource) start() flight.Start {
	log := s.p.log.With("upstream", s.repo.Upstream, "repository", s.repo.Name, "digest", s.digest.String())
	return flight.Start{Source: s, Observer: s, Log: log}
}

func (s *blobSource) want(size int64) Descriptor { return Descriptor{Digest: s.digest, Size: size} }

func (s *blobSource) String() string { return "blob " + s.digest.String() + " of " + s.repo.String() }

func (s *blobSource) Blob(ctx context.Context, from, n int64) (upstream.Content, error) {
	return s.u.Registry.Blob(ctx, s.repo.Name, s.digest, from, n)
}

// Answered remembers that the repository has the blob.
func (s *blobSource) Answered(size int64) {
	s.p.meta.PutMember(s.repo, s.digest, metadata.Member{Size: size})
}

// Completed remembers the size, which is known by now.
func (s *blobSource) Completed(size int64) { s.Answered(size) }

// Failed remembers that the repository does not have the blob, where its
// upstream says so.
func (s *blobSource) Failed(err error) {
	if errors.Is(err, upstream.ErrNotFound) {
		s.p.absent.remember(blobKey(s.repo, s.digest), err)
	}
}

func (s *blobSource) Received(bytes int64) { tell2(s.p.opts.Events.Received, s.u.Name, bytes) }

func (s *blobSource) NotKept() { tell(s.p.opts.Events.Bypassed, s.repo.Upstream) }

func (p *Puller) sourceOf(u Upstream, repo Repository, d Digest) *blobSource {
	return &blobSource{p: p, u: u, repo: repo, digest: d}
}
