package disk

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/entrepot/entrepot/cache"
)

// Damaged files are kept for inspection, but must not fill the disk: the newest
// ones within both limits stay.
const (
	maxQuarantineFiles = 16
	maxQuarantineBytes = 64 << 20
)

// quarantine moves the file that found describes to damaged/, so that it is no
// longer served and the next pull fetches the content again. It reports whether
// this call did.
func (b *blobs) quarantine(d cache.Digest, path string, found fs.FileInfo, why ...any) bool {
	b.nameMu.Lock()
	defer b.nameMu.Unlock()
	if now, err := b.files.Lstat(path); err != nil || !os.SameFile(now, found) {
		return false // another call was faster
	}
	attrs := append([]any{"digest", d.String()}, why...)
	err := b.files.Mkdir(b.damaged)
	if err == nil || os.IsExist(err) {
		err = b.files.Rename(path, filepath.Join(b.damaged, d.Encoded()))
	}
	if err != nil {
		attrs = append(attrs, "kept", false, "error", err)
		err = b.files.Remove(path)
	}
	if err != nil {
		b.log.Error("content is damaged and can't be quarantined", append(attrs, "error", err)...)
		return false
	}
	b.log.Warn("content is damaged and was quarantined; the next pull fetches it again", attrs...)
	b.onDamage()
	b.dropSums(path)
	b.trimQuarantine()
	b.aside.count()
	return true
}

// trimQuarantine removes the oldest quarantined files beyond the limits.
func (b *blobs) trimQuarantine() {
	entries, err := readFolder(b.files, b.damaged)
	if err != nil {
		return // the next call tries again
	}
	var kept []fs.FileInfo
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			kept = append(kept, info)
		}
	}
	slices.SortFunc(kept, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	var bytes int64
	for i, info := range kept {
		bytes += info.Size()
		if i >= maxQuarantineFiles || bytes > maxQuarantineBytes {
			_ = b.files.Remove(filepath.Join(b.damaged, info.Name()))
		}
	}
}
