package disk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
)

// Mark is made of the folders that content is in, and of when something was last
// added to each of them or removed from it. There are 256 for each algorithm at
// most.
func (b *blobs) Mark(ctx context.Context) string {
	mark := sha256.New()
	algorithms, err := readFolder(b.files, b.root)
	if err != nil {
		return ""
	}
	for _, algorithm := range algorithms {
		path := filepath.Join(b.root, algorithm.Name())
		folders, err := readFolder(b.files, path)
		if err != nil {
			return ""
		}
		for _, folder := range folders {
			info, err := b.files.Lstat(filepath.Join(path, folder.Name()))
			if err != nil || ctx.Err() != nil {
				return ""
			}
			fmt.Fprintln(mark, algorithm.Name(), folder.Name(), info.ModTime().UnixNano())
		}
	}
	return hex.EncodeToString(mark.Sum(nil))
}

func (g guarded) Mark(ctx context.Context) string {
	mark, err := await(ctx, g.places, task{operation: "mark what is there"}, func() (string, error) { return g.blobs.Mark(ctx), nil }, nil)
	if err != nil {
		return ""
	}
	return mark
}
