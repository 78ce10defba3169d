package pull

import (
	"context"
	"errors"
	"time"

	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/upstream"
)

// blobSource is a blob in one repository. Downloads read from it, and report to
// it what the records of that repository need.
type blobSource struct {
	p      *Puller
	u      Upstream
	repo   Repository
	digest Digest
	began  time.Time
}

// startedFor is the repository whose request started a download.
func startedFor(f *flight.Flight) Repository { return f.Source().(*blobSource).repo }

// startOptions are the options of a download from this source.
func (s *blobSource) startOptions() flight.StartOptions {
	log := s.p.log.With("upstream", s.repo.Upstream, "repository", s.repo.Name, "digest", s.digest.String())
	return flight.StartOptions{Source: s, Observer: s, Log: log, NoRanges: s.hasNoRanges(), Connections: s.u.Connections}
}

// Origin is the repository.
func (s *blobSource) Origin() flight.Origin { return originOf(s.repo) }

func originOf(repo Repository) flight.Origin {
	return flight.Origin{Upstream: repo.Upstream, Repository: repo.Name}
}

func (s *blobSource) descriptor(size int64) Descriptor {
	return Descriptor{Digest: s.digest, Size: size}
}

func (s *blobSource) String() string { return "blob " + s.digest.String() + " of " + s.repo.String() }

func (s *blobSource) Blob(ctx context.Context, from, n int64) (upstream.Content, error) {
	if s.u.Offline {
		return upstream.Content{}, ErrOffline
	}
	return s.u.Registry.Blob(ctx, s.repo.Name, s.digest, from, n)
}

// Answered records that the repository has the blob.
func (s *blobSource) Answered(size int64) {
	if s.u.Credentialed {
		s.p.ledger.PutPrivate(s.digest)
	}
	s.p.putHeld(s.u, s.repo, s.digest, size)
}

// privateFlush bounds how long content waits to be published until it is
// durable that it may be private.
const privateFlush = 10 * time.Second

// Completed records the size, which is known by now. What may be private is not
// published before that is durable: nobody would know it after a crash.
func (s *blobSource) Completed(size int64) {
	s.Answered(size)
	if !s.u.Credentialed {
		return
	}
	ctx, cancel := context.WithTimeout(s.p.work.Context(), privateFlush)
	defer cancel()
	if err := s.p.ledger.Flush(ctx); err != nil {
		s.p.log.Warn("it is not durable yet which repository a blob may be private to", "digest", s.digest.String(), "error", err)
	}
}

// downloadKey is the key of the late answer to a download.
func downloadKey(repo Repository, d Digest) string { return "download\x00" + blobKey(repo, d) }

// Failed remembers that the repository does not have the blob, if the upstream
// said so, and any other refusal if its client may have left by now.
func (s *blobSource) Failed(err error) {
	s.p.requests.others.keep(downloadKey(s.repo, s.digest), s.began, s.p.rules, lateAnswer{err: err})
	if errors.Is(err, upstream.ErrNotFound) {
		s.p.negative.put(blobKey(s.repo, s.digest), err)
	}
}

func (s *blobSource) Received(bytes int64) { emit2(s.p.events.Received, s.u.Name, bytes) }

func (s *blobSource) NotCached() { emit(s.p.events.Bypassed, s.repo.Upstream) }

func (p *Puller) newBlobSource(u Upstream, repo Repository, d Digest) *blobSource {
	return &blobSource{p: p, u: u, repo: repo, digest: d, began: time.Now()}
}
