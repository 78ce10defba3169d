package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

// blobs keeps content as files that never change once they have their name.
type blobs struct {
	root    string // the folder blobs/
	drafts  string
	damaged string
	minFree int64
	sizes   sizes
	log     *slog.Logger
	faults  faults

	// promised are the bytes that open drafts were promised and have not
	// written yet.
	promised atomic.Int64

	verifyEvery time.Duration
	onDamage    func()
	known       *known
	open        context.Context // ends with the cache
	close       context.CancelFunc
	proofs      sync.WaitGroup

	// naming is held while a file gets or loses its place by name, so that
	// what is set aside is the file that was found damaged, and not one that
	// has just taken its place.
	naming sync.Mutex
	// beside is held while a file of checksums gets or loses its place beside
	// its content, so that none is left without.
	beside sync.Mutex
	// lasting are the folders below root known to survive a power cut.
	lasting map[string]bool
}

func newBlobs(dir string, opts Options, records *records) *blobs {
	b := &blobs{
		root:    filepath.Join(dir, "blobs"),
		drafts:  filepath.Join(dir, "drafts"),
		damaged: filepath.Join(dir, "damaged"),
		minFree: opts.MinFree,
		log:     opts.Log,
		faults:  opts.faults,

		verifyEvery: opts.VerifyEvery,
		onDamage:    opts.OnDamage,
		known:       newKnown(),
		lasting:     make(map[string]bool),
	}
	b.open, b.close = context.WithCancel(context.Background())
	b.sizes = newSizes(b.drafts, records)
	return b
}

// place is the path of the content with digest d, and false where d is no
// digest: then it names no path.
func (b *blobs) place(d cache.Digest) (string, bool) {
	if d.Validate() != nil {
		return "", false
	}
	hex := d.Encoded()
	return filepath.Join(b.root, d.Algorithm().String(), hex[:2], hex), true
}

func (b *blobs) Open(_ context.Context, d cache.Digest) (cache.Kept, error) {
	path, ok := b.place(d)
	if !ok {
		return nil, fmt.Errorf("open %q: %w", d, cache.ErrNotFound)
	}
	file, err := openPublished(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d, notFound(err))
	}
	info, err := file.Stat()
	if err == nil {
		err = b.checkSize(d, path, info)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open %s: %w", d, notFound(err))
	}
	return &kept{blob: newBlob(file, info.Size()), blobs: b, digest: d, path: path}, nil
}

func (b *blobs) Stat(_ context.Context, d cache.Digest) (int64, error) {
	path, ok := b.place(d)
	if !ok {
		return 0, fmt.Errorf("stat %q: %w", d, cache.ErrNotFound)
	}
	info, err := os.Lstat(path)
	if err == nil {
		err = b.checkSize(d, path, info)
	}
	if err != nil {
		return 0, fmt.Errorf("stat %s: %w", d, notFound(err))
	}
	return info.Size(), nil
}

// checkSize sets a file aside whose size is not the size it was published with.
func (b *blobs) checkSize(d cache.Digest, path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file: %w", path, cache.ErrNotFound)
	}
	want, known := b.sizes.published(d, path)
	if !known || want == info.Size() {
		return nil
	}
	why := b.mismatch(d, path, info, "size", info.Size(), "published", want)
	return fmt.Errorf("%d bytes instead of %d: %w: %w", info.Size(), want, cache.ErrNotFound, why)
}

func (b *blobs) Delete(_ context.Context, d cache.Digest) error {
	path, ok := b.place(d)
	if !ok {
		return nil
	}
	b.beside.Lock()
	defer b.beside.Unlock()
	// The checksums first: a crash between leaves content without them, never
	// the other way round.
	_ = os.Remove(path + sumsSuffix) // what is left is found by Walk
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w", d, err)
	}
	b.sizes.forget(d)
	return nil
}

// Walk goes through the folders in the order of their names and passes over
// whatever is not named as content is. Checksums without content go.
func (b *blobs) Walk(ctx context.Context, fn func(d cache.Digest, size int64) bool) error {
	algorithms, err := os.ReadDir(b.root)
	if err != nil {
		return fmt.Errorf("walk: %w", err)
	}
	for _, algorithm := range algorithms {
		folders, err := readFolder(filepath.Join(b.root, algorithm.Name()))
		if err != nil {
			return fmt.Errorf("walk: %w", err)
		}
		for _, folder := range folders {
			files, err := readFolder(filepath.Join(b.root, algorithm.Name(), folder.Name()))
			if err != nil {
				return fmt.Errorf("walk: %w", err)
			}
			for _, file := range files {
				if ctx.Err() != nil {
					return fmt.Errorf("walk: %w", context.Cause(ctx))
				}
				if of, is := strings.CutSuffix(file.Name(), sumsSuffix); is && !listed(files, of) {
					b.dropSums(filepath.Join(b.root, algorithm.Name(), folder.Name(), of))
				}
				d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm.Name()), file.Name())
				if d.Validate() != nil || !strings.HasPrefix(file.Name(), folder.Name()) || len(folder.Name()) != 2 {
					continue
				}
				info, err := file.Info()
				if err != nil || !info.Mode().IsRegular() {
					continue // deleted meanwhile, or a stranger
				}
				if !fn(d, info.Size()) {
					return nil
				}
			}
		}
	}
	return nil
}

// listed says whether a folder's entries, in their order, have one of that name.
func listed(entries []fs.DirEntry, name string) bool {
	_, found := slices.BinarySearchFunc(entries, name, func(e fs.DirEntry, name string) int { return strings.Compare(e.Name(), name) })
	return found
}

// readFolder lists a folder; what is none, or is gone, is empty.
func readFolder(path string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	return entries, err
}

// notFound adds cache.ErrNotFound to the errors of a path that leads to no file.
// FreeBSD calls a symbolic link that is not followed EMLINK.
func notFound(err error) error {
	for _, none := range []error{fs.ErrNotExist, syscall.ENOTDIR, syscall.ELOOP, syscall.EMLINK} {
		if errors.Is(err, none) {
			return fmt.Errorf("%w: %w", cache.ErrNotFound, err)
		}
	}
	return err
}
