package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/store"
)

// handOver is how long a start waits for another entrepot to leave the cache
// folder: as long as that may take to stop, and a little for its disk.
const handOver = shutdownTimeout + 5*time.Second

// whenUnlocked opens a cache folder. If another process has it open, that may be
// about to stop, as at an update: it tries again until the time is over.
func whenUnlocked(ctx context.Context, log *slog.Logger, patience time.Duration, open func() error) error {
	over := time.NewTimer(patience)
	defer over.Stop()
	err := open()
	if errors.Is(err, cache.ErrLocked) {
		log.Warn("waiting for another entrepot to stop", "for", patience, "reason", err)
	}
	for errors.Is(err, cache.ErrLocked) {
		select {
		case <-time.After(100 * time.Millisecond):
			err = open()
		case <-over.C:
			return err
		case <-ctx.Done():
			return err
		}
	}
	return err
}

// spaceLimits resolves the configured limits, which may be percentages of the
// file system. The cache folder need not exist yet.
func spaceLimits(cfg config.Config, log *slog.Logger) (store.Bounds, error) {
	of, err := disk.Space(nearestExisting(cfg.Cache.Dir))
	if err != nil {
		return store.Bounds{}, err
	}
	if of.Bytes == 0 && cfg.Cache.MaxSize.Percent > 0 {
		log.Warn("the file system of the cache does not say how large it is, so that max_size has no meaning: give it in bytes", "max_size", cfg.Cache.MaxSize.String())
	}
	return store.Bounds{
		MaxBytes: cfg.Cache.MaxSize.Of(of.Bytes),
		MinFree:  cfg.Cache.MinFree.Of(of.Bytes),
		Space:    func() (cache.Space, error) { return disk.Space(cfg.Cache.Dir) },
	}, nil
}

// nearestExisting returns the folder, or its nearest parent that exists.
func nearestExisting(folder string) string {
	for {
		parent := filepath.Dir(folder)
		if _, err := os.Stat(folder); err == nil || parent == folder {
			return folder
		}
		folder = parent
	}
}

// timesMet is how often each bound on what is stored was met. All of them are
// there from the start, so that alerts see the first time.
func timesMet(s *store.Store) map[string]int64 {
	met, times := s.TimesMet(), map[string]int64{}
	for bound := range boundNames {
		times[string(bound)] = met[bound]
	}
	return times
}
