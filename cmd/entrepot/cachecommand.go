package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
)

// newCacheCommand returns a command that works on a cache: through the server
// that has it open, or on the folder itself if there is none.
func newCacheCommand(use, short string, args cobra.PositionalArgs, run cacheRun) *cobra.Command {
	return newCommandOn(findCache, use, short, args, run)
}

// cacheRun is what a command does on a cache.
type cacheRun func(cmd *cobra.Command, cfg config.Config, c admin.Cache, args []string) error

// newFetchCommand is newCacheCommand for a command that may ask upstreams, on a
// folder that need not exist yet.
func newFetchCommand(use, short string, args cobra.PositionalArgs, run cacheRun) *cobra.Command {
	return newCommandOn(findCacheToFill, use, short, args, run)
}

type finder func(ctx context.Context, cfg config.Config, adminGiven bool) (_ admin.Cache, closeCache func() error, err error)

func newCommandOn(find finder, use, short string, args cobra.PositionalArgs, run cacheRun) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  args,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, _, err := config.Load(configOptions(cmd.Flags()))
			if err != nil {
				return err
			}
			c, closeCache, err := find(cmd.Context(), cfg, cmd.Flags().Changed("admin"))
			if err != nil {
				return err
			}
			return errors.Join(run(cmd, cfg, c, args), closeCache())
		},
	}
	config.AddFlags(cmd.Flags())
	for _, other := range []string{"listen", "max-size", "offline", "log-level", "log-format"} {
		if err := cmd.Flags().MarkHidden(other); err != nil {
			panic(err) // there is no such flag
		}
	}
	return cmd
}

// findCache returns the cache behind the admin address if --admin was given.
// Otherwise it opens the cache folder, or, if another process has that open,
// returns the cache behind that process's admin address.
func findCache(ctx context.Context, cfg config.Config, adminGiven bool) (_ admin.Cache, closeCache func() error, err error) {
	if _, err := os.Stat(filepath.Join(cfg.Cache.Dir, "format")); err != nil && !adminGiven {
		return nil, nil, fmt.Errorf("there is no cache in %s: name its folder with --cache-dir or --config, or a server with --admin", cfg.Cache.Dir)
	}
	// A command that looks at a cache contacts no upstream and evicts nothing.
	cfg.Offline = true
	cfg.Cache.MaxSize, cfg.Cache.MinFree = config.Size{}, config.Size{}
	return openCache(ctx, cfg, adminGiven)
}

// fillCache is findCache for a command that puts something into a cache: it keeps
// to the bounds, and there may be no cache yet.
func fillCache(ctx context.Context, cfg config.Config, adminGiven bool) (_ admin.Cache, closeCache func() error, err error) {
	cfg.Offline = true
	return openCache(ctx, cfg, adminGiven)
}

// findCacheToFill is findCache for a command that fetches: its cache need not be
// there yet, keeps to its bounds, and asks upstreams unless the configuration
// forbids it.
func findCacheToFill(ctx context.Context, cfg config.Config, adminGiven bool) (_ admin.Cache, closeCache func() error, err error) {
	return openCache(ctx, cfg, adminGiven)
}

func openCache(ctx context.Context, cfg config.Config, adminGiven bool) (_ admin.Cache, closeCache func() error, err error) {
	nothingToClose := func() error { return nil }
	if adminGiven {
		return &adminClient{cfg.Admin, cfg.AdminTokenFile}, nothingToClose, nil
	}
	metrics, err := admin.NewMetrics()
	if err != nil {
		return nil, nil, err
	}
	cfg.Cache.ScrubRate = config.Size{}
	quiet := slog.New(slog.DiscardHandler)
	m, closeMirror, err := openMirror(ctx, cfg, readMachine(cfg.Cache.Dir, quiet), metrics, quiet)
	if errors.Is(err, cache.ErrLocked) {
		client := &adminClient{cfg.Admin, cfg.AdminTokenFile}
		if err := client.ping(ctx); err != nil {
			return nil, nil, fmt.Errorf("another entrepot has %s open, but nothing answers on the admin address %s: name its admin address with --admin (%w)", cfg.Cache.Dir, cfg.Admin, err)
		}
		return client, nothingToClose, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return m.Cache(), func() error { return closeMirror(context.WithoutCancel(ctx)) }, nil
}

// oneArgument is for commands that take exactly one argument.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError(fmt.Sprintf("name one %s, as in: %s", what, cmd.Example))
		}
		return nil
	}
}
