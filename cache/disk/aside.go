package disk

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/entrepot/entrepot/cache"
)

// What was set aside is for whoever wants to know what happened, and must not
// eat the disk: the newest files within both bounds stay.
const (
	asideFiles = 16
	asideBytes = 64 << 20
)

// setAside takes the file that found describes out of its place, so that it is
// served no more and the next pull fetches it again. It says whether it was
// this call that did.
func (b *blobs) setAside(d cache.Digest, path string, found fs.FileInfo, why ...any) bool {
	b.naming.Lock()
	defer b.naming.Unlock()
	if now, err := os.Lstat(path); err != nil || !os.SameFile(now, found) {
		return false // someone else was faster
	}
	attrs := append([]any{"digest", d.String()}, why...)
	err := os.Mkdir(b.damaged, 0o700)
	if err == nil || os.IsExist(err) {
		err = rename(path, filepath.Join(b.damaged, d.Encoded()))
	}
	if err != nil {
		attrs = append(attrs, "kept", false, "error", err)
		err = os.Remove(path)
	}
	if err != nil {
		b.log.Error("content is damaged and can't be set aside", append(attrs, "error", err)...)
		return false
	}
	b.log.Warn("content is damaged; set aside, to be fetched again", attrs...)
	b.onDamage()
	b.dropSums(path)
	b.boundAside()
	return true
}

// boundAside removes the oldest of what was set aside, as far as it is too much.
func (b *blobs) boundAside() {
	entries, err := readFolder(b.damaged)
	if err != nil {
		return // the next one set aside tries again
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
		if i >= asideFiles || bytes > asideBytes {
			os.Remove(filepath.Join(b.damaged, info.Name()))
		}
	}
}
