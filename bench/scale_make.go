package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/cache/disk/files"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/pull"
	registries "github.com/entrepot/entrepot/upstream"
)

// makeCache makes a cache of all images in a folder, by the code that clients
// pull through, in this process: there is no HTTP, and nothing waits for the
// disk. Else it is what the program makes ([sameAsPulled]).
func makeCache(ctx context.Context, s *smallShelf, dir string) error {
	kept, err := disk.Open(dir, disk.Options{Journal: metadata.Durable(), Files: unsynced{disk.OS()}})
	if err != nil {
		return err
	}
	memory, err := memory.NewContent(0)
	if err != nil {
		return err
	}
	m := mirror.New(mirror.Options{
		Blobs: kept.Blobs(), Records: kept.Records(), Memory: memory,
		Upstreams: []pull.Upstream{{Name: scaleUpstream, Endpoints: []registries.Endpoint{origin{s}}}},
		Rules:     pull.Rules{TagTTL: time.Hour, ReferrersTTL: time.Hour, NegativeTTL: time.Minute, MaxWait: time.Minute, Wait: time.Minute},
		Logger:    slog.New(slog.DiscardHandler),
	})
	m.Start()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for number := range s.images {
		group.Go(func() error {
			if err := pullSmall(ctx, m.Puller, newSmallImage(number)); err != nil {
				return fmt.Errorf("image %d: %w", number, err)
			}
			return nil
		})
	}
	err = group.Wait()
	m.Close()
	if closeErr := kept.Close(); err == nil {
		err = closeErr
	}
	return err
}

// pullSmall pulls an image as [pullOverHTTP] does.
func pullSmall(ctx context.Context, p *pull.Puller, image smallImage) error {
	repo := metadata.Repository{Upstream: scaleUpstream, Name: image.repository}
	read := func(c content) error {
		b, err := p.Blob(ctx, repo, digest.Digest(c.digest), pull.Want{})
		if err != nil {
			return err
		}
		defer b.Close()
		_, err = b.WriteRange(ctx, io.Discard, 0, -1)
		return err
	}
	subject, err := p.Manifest(ctx, repo, image.tag)
	if err != nil {
		return err
	}
	for _, b := range image.blobs {
		if err := read(b); err != nil {
			return err
		}
	}
	if _, err := p.Referrers(ctx, repo, subject.Descriptor.Digest); err != nil {
		return err
	}
	if image.signature == nil {
		return nil
	}
	if _, err := p.Manifest(ctx, repo, image.signature.digest); err != nil {
		return err
	}
	return read(image.signed)
}

// origin is a shelf in the same process.
type origin struct{ s *smallShelf }

func (o origin) find(repo, ref string) (content, error) {
	c, ok := o.s.find(repo, ref)
	if !ok {
		return c, fmt.Errorf("%s %s: %w", repo, ref, registries.ErrNotFound)
	}
	return c, nil
}

func (o origin) open(repo, ref string, from, n int64) (registries.Content, error) {
	c, err := o.find(repo, ref)
	if err != nil {
		return registries.Content{}, err
	}
	rest := c.bytes[from:]
	if n >= 0 {
		rest = rest[:min(n, int64(len(rest)))]
	}
	return registries.Content{
		Body: io.NopCloser(bytes.NewReader(rest)), MediaType: c.mediaType, Digest: digest.Digest(c.digest), Size: int64(len(c.bytes)), From: from,
	}, nil
}

func (o origin) describe(repo, ref string) (registries.Descriptor, error) {
	c, err := o.find(repo, ref)
	return registries.Descriptor{MediaType: c.mediaType, Digest: digest.Digest(c.digest), Size: int64(len(c.bytes))}, err
}

func (o origin) Resolve(_ context.Context, repo, ref string) (registries.Descriptor, error) {
	return o.describe(repo, ref)
}

func (o origin) Manifest(_ context.Context, repo, ref string) (registries.Content, error) {
	return o.open(repo, ref, 0, -1)
}

func (o origin) ResolveBlob(_ context.Context, repo string, d registries.Digest) (registries.Descriptor, error) {
	return o.describe(repo, d.String())
}

func (o origin) Blob(_ context.Context, repo string, d registries.Digest, from, n int64) (registries.Content, error) {
	return o.open(repo, d.String(), from, n)
}

func (o origin) Tags(_ context.Context, repo string, _ url.Values) (registries.TagList, error) {
	return registries.TagList{}, fmt.Errorf("tags of %s: %w", repo, registries.ErrUnsupported)
}

func (o origin) Referrers(_ context.Context, repo string, subject registries.Digest) (registries.ReferrersList, error) {
	return registries.ReferrersList{}, fmt.Errorf("referrers of %s in %s: %w", subject, repo, registries.ErrNoAPI)
}

// unsynced is a file system that makes nothing durable. The database of records
// syncs itself, once for many records.
type unsynced struct{ files.System }

func (u unsynced) SyncFolder(string) error { return nil }

func (u unsynced) Open(path string, flag int) (files.File, error) {
	f, err := u.System.Open(path, flag)
	return unsyncedFile{f}, err
}

func (u unsynced) CreateTemp(folder, pattern string) (files.File, error) {
	f, err := u.System.CreateTemp(folder, pattern)
	return unsyncedFile{f}, err
}

type unsyncedFile struct{ files.File }

func (unsyncedFile) Sync() error { return nil }

// scaleBuckets are the buckets of records that a pull writes, but for times.
var scaleBuckets = []string{"tag", "checked", "manifest", "wide", "member", "held", "private", "taglist", "referrers", "passed", "attached", "attestation", "used"}

// sameAsPulled pulls some images through the program, makes the same with
// [makeCache], and compares the files and the records of both.
func sameAsPulled(ctx context.Context, program, work string, images int) error {
	s := newSmallShelf(images)
	stop, err := s.start()
	if err != nil {
		return err
	}
	defer stop()
	made := filepath.Join(work, "made")
	if err := makeCache(ctx, s, made); err != nil {
		return err
	}
	pulled := &scaleServer{program: program, dir: work, cache: filepath.Join(work, "pulled"), origin: s.host}
	if err := pulled.start(ctx, ""); err != nil {
		return err
	}
	for number := range images {
		if err := pullOverHTTP(ctx, pulled.host, newSmallImage(number)); err != nil {
			pulled.stop()
			return fmt.Errorf("image %d: %w", number, err)
		}
	}
	time.Sleep(5 * time.Second) // what it learns after the pulls
	pulled.stop()
	return sameCaches(ctx, made, pulled.cache)
}
