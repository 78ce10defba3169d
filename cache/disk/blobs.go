package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files"
)

// blobs stores content as files that never change after they are published.
type blobs struct {
	root    string // the folder blobs/
	drafts  string
	damaged string
	minFree int64
	// fromMemory says that the file system opens files without asking the disk
	// where their names are in memory.
	fromMemory bool
	sizes      sizes
	log        *slog.Logger
	files      files.System
	places     *places // of files
	folder     *folder
	aside      *aside
	faults     faults

	// reserved is the number of bytes that open drafts have reserved and not
	// written yet.
	reserved atomic.Int64

	keptMu sync.Mutex // guards kept
	kept   map[cache.Digest]keptFile

	verifyEvery time.Duration
	onDamage    func()
	checks      *checkCache
	ctx         context.Context // ends when the cache is closed
	cancel      context.CancelFunc
	proofs      proofs

	// nameMu is held while a file is moved to or from its path, so that a file
	// that is quarantined is the one found damaged, and not one that has just
	// replaced it.
	nameMu sync.Mutex
	// sumsMu is held while a file of checksums is moved to or from its path, so
	// that there is never one without its content.
	sumsMu sync.Mutex
	// durableFolders are the folders below root that are known to survive a
	// power failure.
	durableFolders map[string]bool
}

func newBlobs(dir string, opts Options, records *records) *blobs {
	b := &blobs{
		root:    filepath.Join(dir, "blobs"),
		drafts:  filepath.Join(dir, "drafts"),
		damaged: filepath.Join(dir, damagedFolder),
		minFree: opts.MinFree,

		fromMemory: opts.Files.OpensFromMemory(dir),

		log:    opts.Log,
		files:  opts.Files,
		places: opts.places,
		folder: opts.folder,
		aside:  opts.aside,
		faults: opts.faults,

		verifyEvery:    opts.VerifyEvery,
		onDamage:       opts.OnDamage,
		checks:         newKnown(),
		kept:           make(map[cache.Digest]keptFile),
		durableFolders: make(map[string]bool),
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.sizes = newSizes(b.files, b.drafts, records)
	return b
}

// Outage is that of the places.
func (b *blobs) Outage() <-chan struct{} { return b.places.outage() }

// pathOf returns the path of the content with digest d, or false if d is not a
// valid digest.
func (b *blobs) pathOf(d cache.Digest) (string, bool) {
	if d.Validate() != nil {
		return "", false
	}
	hex := d.Encoded()
	return filepath.Join(b.root, d.Algorithm().String(), hex[:2], hex), true
}

func (b *blobs) Open(_ context.Context, d cache.Digest) (cache.PublishedBlob, error) {
	path, ok := b.pathOf(d)
	if !ok {
		return nil, fmt.Errorf("open %q: %w", d, cache.ErrNotFound)
	}
	file, err := b.files.OpenPublished(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d, wrapNotFound(err))
	}
	info, err := file.Stat()
	if err == nil {
		err = b.checkSize(d, path, info)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open %s: %w", d, wrapNotFound(err))
	}
	return &publishedBlob{blob: newBlob(file, info.Size()), blobs: b, digest: d, path: path}, nil
}

// openFromMemory opens content that was open before, if that does not ask the
// disk: neither to open the file, nor for what is known of its pieces.
func (b *blobs) openFromMemory(d cache.Digest) (*publishedBlob, bool) {
	path, ok := b.pathOf(d)
	if !ok || !b.fromMemory {
		return nil, false
	}
	file, ok := b.files.OpenPublishedFromMemory(path)
	if !ok {
		return nil, false
	}
	is, ok := file.IdentifyFromMemory()
	if c := b.checks.get(d, is); ok && c != nil {
		k := &publishedBlob{blob: newBlob(file, is.Size), blobs: b, digest: d, path: path}
		k.useChecks(c)
		return k, true
	}
	file.Close()
	return nil, false
}

func (b *blobs) Stat(_ context.Context, d cache.Digest) (int64, error) {
	path, ok := b.pathOf(d)
	if !ok {
		return 0, fmt.Errorf("stat %q: %w", d, cache.ErrNotFound)
	}
	info, err := b.files.Lstat(path)
	if err == nil {
		err = b.checkSize(d, path, info)
	}
	if err != nil {
		return 0, fmt.Errorf("stat %s: %w", d, wrapNotFound(err))
	}
	return info.Size(), nil
}

// checkSize quarantines a file whose size is not the size it was published
// with.
func (b *blobs) checkSize(d cache.Digest, path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file: %w", path, cache.ErrNotFound)
	}
	want, known := b.sizes.published(d, path)
	if !known || want == info.Size() {
		return nil
	}
	why := b.mismatch(d, path, info, "size", info.Size(), "published", want)
	return fmt.Errorf("%d bytes instead of %d: %w: %w", info.Size(), want, cache.ErrNotFound, why)
}

func (b *blobs) Delete(_ context.Context, d cache.Digest) error {
	path, ok := b.pathOf(d)
	if !ok {
		return nil
	}
	b.sumsMu.Lock()
	defer b.sumsMu.Unlock()
	// The checksums are removed first, because a crash in between may leave
	// content without them, but not the other way round.
	_ = b.files.Remove(path + sumsSuffix) // if it fails, Walk removes them
	if err := b.files.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w", d, err)
	}
	b.sizes.forget(d)
	b.removeEmpty(filepath.Dir(path))
	return nil
}

// removeEmpty removes a folder that has nothing in it any more. There may be as
// many folders as files, and each takes an inode.
func (b *blobs) removeEmpty(folder string) {
	b.nameMu.Lock()
	defer b.nameMu.Unlock()
	if b.files.Remove(folder) == nil {
		delete(b.durableFolders, folder)
	}
}

// Walk visits the folders in the order of their names and skips everything that
// is not named like content. It removes checksums without content.
func (b *blobs) Walk(ctx context.Context, fn func(d cache.Digest, size int64) bool) error {
	algorithms, err := readFolder(b.files, b.root)
	if err != nil {
		return fmt.Errorf("walk: %w", err)
	}
	for _, algorithm := range algorithms {
		folders, err := readFolder(b.files, filepath.Join(b.root, algorithm.Name()))
		if err != nil {
			return fmt.Errorf("walk: %w", err)
		}
		for _, folder := range folders {
			files, err := readFolder(b.files, filepath.Join(b.root, algorithm.Name(), folder.Name()))
			if err != nil {
				return fmt.Errorf("walk: %w", err)
			}
			for _, file := range files {
				if ctx.Err() != nil {
					return fmt.Errorf("walk: %w", context.Cause(ctx))
				}
				if name, ok := strings.CutSuffix(file.Name(), sumsSuffix); ok && !contains(files, name) {
					b.dropSums(filepath.Join(b.root, algorithm.Name(), folder.Name(), name))
				}
				d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm.Name()), file.Name())
				if d.Validate() != nil || !strings.HasPrefix(file.Name(), folder.Name()) || len(folder.Name()) != 2 {
					continue
				}
				info, err := file.Info()
				if err != nil || !info.Mode().IsRegular() {
					continue // deleted meanwhile, or not a file
				}
				if !fn(d, info.Size()) {
					return nil
				}
			}
		}
	}
	return nil
}

// contains reports whether a folder's sorted entries have one of that name.
func contains(entries []fs.DirEntry, name string) bool {
	_, found := slices.BinarySearchFunc(entries, name, func(e fs.DirEntry, name string) int { return strings.Compare(e.Name(), name) })
	return found
}

// readFolder lists a folder. If it does not exist or is not a folder, the list
// is empty.
func readFolder(system files.System, path string) ([]fs.DirEntry, error) {
	entries, err := system.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	return entries, err
}

// isMissing reports whether an error is that of a path without a file. FreeBSD
// reports EMLINK for a symbolic link that is not followed.
func isMissing(err error) bool {
	for _, none := range []error{fs.ErrNotExist, syscall.ENOTDIR, syscall.ELOOP, syscall.EMLINK} {
		if errors.Is(err, none) {
			return true
		}
	}
	return false
}

// wrapNotFound adds cache.ErrNotFound to the errors of a path without a file.
func wrapNotFound(err error) error {
	if isMissing(err) {
		return fmt.Errorf("%w: %w", cache.ErrNotFound, err)
	}
	return err
}
