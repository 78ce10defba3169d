package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/entrepot/entrepot/cache"
)

// keptFile is a draft that waits to be resumed.
type keptFile struct {
	cache.KeptDraft
	path string
}

// removeFiles removes the map of a draft first, because a file without a map is removed at the
// start.
func (b *blobs) removeFiles(k keptFile) error {
	return errors.Join(removeIfThere(b.files, k.path+mapSuffix), removeIfThere(b.files, k.path))
}

// loadKept finds the drafts that were kept, or saved by a process that ended
// early, and removes everything else in the folder of drafts. Of several drafts
// of one digest, the one with the most bytes stays, and none of content that was
// published.
func (b *blobs) loadKept() error {
	if err := b.loadDrafts(); err != nil {
		return fmt.Errorf("drafts of an earlier run: %w", err)
	}
	return nil
}

func (b *blobs) loadDrafts() error {
	entries, err := readFolder(b.files, b.drafts)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), mapSuffix)
		if !ok || !entry.Type().IsRegular() {
			continue
		}
		path := filepath.Join(b.drafts, name)
		m, err := readMap(b.files, path)
		switch {
		case errors.Is(err, errNoMap):
			b.log.Warn("the map of an unfinished download is damaged", "file", path, "error", err)
		case err != nil:
			return err
		default:
			b.choose(keptFile{m.kept(), path})
		}
	}
	return b.removeOthers(entries)
}

// choose keeps a draft unless a better one or the content is there.
func (b *blobs) choose(k keptFile) {
	if path, _ := b.pathOf(k.Digest); b.isThere(path) {
		return
	}
	if other, ok := b.kept[k.Digest]; !ok || k.Bytes > other.Bytes {
		b.kept[k.Digest] = k
	}
}

func (b *blobs) isThere(path string) bool {
	_, err := b.files.Lstat(path)
	return err == nil
}

// removeOthers removes the drafts that were not kept.
func (b *blobs) removeOthers(entries []fs.DirEntry) error {
	keep := make(map[string]bool)
	for _, k := range b.kept {
		keep[filepath.Base(k.path)] = true
	}
	removed := 0
	for _, entry := range entries {
		draft := strings.TrimSuffix(entry.Name(), mapSuffix)
		if entry.IsDir() || keep[draft] {
			continue // not created by this package, or kept
		}
		if err := b.files.Remove(filepath.Join(b.drafts, entry.Name())); err != nil {
			return err
		}
		if draft == entry.Name() {
			removed++
		}
	}
	if removed > 0 {
		b.log.Info("removed unfinished downloads of an earlier run", "count", removed)
	}
	return nil
}

// keep adds a draft that was kept, and removes an earlier one.
func (b *blobs) keep(k keptFile) {
	b.keptMu.Lock()
	before, ok := b.kept[k.Digest]
	b.kept[k.Digest] = k
	b.keptMu.Unlock()
	if !ok {
		return
	}
	if err := b.removeFiles(before); err != nil {
		b.log.Warn("an unfinished download could not be removed after a later one was kept", "digest", k.Digest.String(), "error", err)
	}
}

// takeKept removes a draft from those that were kept, but not its files.
func (b *blobs) takeKept(d cache.Digest) (keptFile, bool) {
	b.keptMu.Lock()
	defer b.keptMu.Unlock()
	k, ok := b.kept[d]
	delete(b.kept, d)
	return k, ok
}

// putBack undoes takeKept, unless a later draft was kept meanwhile.
func (b *blobs) putBack(k keptFile) {
	b.keptMu.Lock()
	defer b.keptMu.Unlock()
	if _, ok := b.kept[k.Digest]; !ok {
		b.kept[k.Digest] = k
	}
}

func (b *blobs) Kept(d cache.Digest) (cache.KeptDraft, bool) {
	b.keptMu.Lock()
	defer b.keptMu.Unlock()
	k, ok := b.kept[d]
	return k.KeptDraft, ok
}

func (b *blobs) AllKept() []cache.KeptDraft {
	b.keptMu.Lock()
	defer b.keptMu.Unlock()
	all := make([]cache.KeptDraft, 0, len(b.kept))
	for _, k := range b.kept {
		all = append(all, k.KeptDraft)
	}
	return all
}

func (b *blobs) DropKept(_ context.Context, d cache.Digest, keptAt time.Time) error {
	if err := b.dropKept(d, keptAt); err != nil {
		return fmt.Errorf("drop the draft of %s: %w", d, err)
	}
	return nil
}

func (b *blobs) dropKept(d cache.Digest, keptAt time.Time) error {
	b.keptMu.Lock()
	k, ok := b.kept[d]
	if ok = ok && (keptAt.IsZero() || k.KeptAt.Equal(keptAt)); ok {
		delete(b.kept, d)
	}
	b.keptMu.Unlock()
	if !ok {
		return nil
	}
	err := b.removeFiles(k)
	if err != nil {
		b.putBack(k)
	}
	return err
}

func (b *blobs) Resume(_ context.Context, d cache.Digest) (cache.Draft, cache.KeptDraft, error) {
	k, ok := b.takeKept(d)
	if !ok {
		return nil, cache.KeptDraft{}, fmt.Errorf("resume %s: %w", d, cache.ErrNotFound)
	}
	resumed, m, err := b.resume(k)
	if err == nil {
		return resumed, m.kept(), nil
	}
	if errors.Is(err, errNoMap) {
		err = errors.Join(cache.ErrNotFound, err, b.removeFiles(k))
	} else {
		b.putBack(k)
	}
	return nil, cache.KeptDraft{}, fmt.Errorf("resume %s: %w", d, err)
}

func (b *blobs) resume(k keptFile) (*draft, draftMap, error) {
	m, err := readMap(b.files, k.path)
	if err != nil {
		return nil, m, err
	}
	if m.digest != k.Digest {
		return nil, m, fmt.Errorf("it is of %s: %w", m.digest, errNoMap)
	}
	file, err := b.files.Open(k.path, os.O_RDWR)
	if err != nil {
		return nil, m, wrapNoMap(err)
	}
	resumed := b.newDraft(cache.Descriptor{Digest: m.digest, Size: m.size}, file)
	resumed.sparse.Store(true)
	resumed.saved = true
	for _, r := range m.runs {
		resumed.runs.put(r)
		resumed.ahead.Add(r.Span)
		resumed.have += r.Len()
	}
	return resumed, m, nil
}
