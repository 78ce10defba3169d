package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/pull"
)

// newKeeping is a command about what is kept. It works through the running
// server, or, where none runs, on the folder itself.
func newKeeping(use, short string, args cobra.PositionalArgs, do func(cmd *cobra.Command, cfg config.Config, k proxy.Keeper, args []string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  args,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, _, err := config.Load(config.Options{Environment: true, Flags: cmd.Flags()})
			if err != nil {
				return err
			}
			k, end, err := openKeeper(cmd.Context(), cfg, cmd.Flags().Changed("admin"))
			if err != nil {
				return err
			}
			return errors.Join(do(cmd, cfg, k, args), end())
		},
	}
	config.AddFlags(cmd.Flags())
	for _, other := range []string{"listen", "max-size", "offline", "log-level", "log-format"} {
		if err := cmd.Flags().MarkHidden(other); err != nil {
			panic(err) // only for a flag that is not there
		}
	}
	return cmd
}

// openKeeper finds who keeps the cache: the server behind the admin address
// where that was told, else whoever has the folder locked, else nobody.
func openKeeper(ctx context.Context, cfg config.Config, adminTold bool) (proxy.Keeper, func() error, error) {
	nothing := func() error { return nil }
	if adminTold {
		return &running{cfg.Admin}, nothing, nil
	}
	if _, err := os.Stat(filepath.Join(cfg.Cache.Dir, "format")); err != nil {
		return nil, nil, fmt.Errorf("no cache is kept in %s: say where with --cache-dir or --config, or name a server with --admin", cfg.Cache.Dir)
	}
	metrics, err := proxy.NewMetrics()
	if err != nil {
		return nil, nil, err
	}
	// Looking at a cache asks nobody, and evicts nothing.
	cfg.Offline = true
	cfg.Cache.MaxSize, cfg.Cache.MinFree, cfg.Cache.ScrubRate = config.Size{}, config.Size{}, config.Size{}
	puller, closeCache, err := openCache(cfg, metrics, slog.New(slog.DiscardHandler))
	if errors.Is(err, cache.ErrLocked) {
		r := &running{cfg.Admin}
		if err := r.alive(ctx); err != nil {
			return nil, nil, fmt.Errorf("another entrepot has %s open, and nobody answers on the admin address %s: say with --admin where it listens (%w)", cfg.Cache.Dir, cfg.Admin, err)
		}
		return r, nothing, nil
	}
	return puller, closeCache, err
}

// pinned says what the configuration's pins are on.
func pinned(cfg config.Config) func(repo pull.Repository, ref string) bool {
	pins := cfg.PinList()
	return func(repo pull.Repository, ref string) bool {
		return slices.ContainsFunc(pins, func(p config.Pin) bool { return p.Matches(repo.Upstream, repo.Name, ref) })
	}
}

// exactPins are those that can be fetched before anybody asks.
func exactPins(cfg config.Config) []pull.Reference {
	var all []pull.Reference
	for _, p := range cfg.PinList() {
		if ref, ok := p.Exact(); ok {
			all = append(all, pull.Reference{Repository: pull.Repository{Upstream: p.Upstream, Name: p.Repository}, Ref: ref})
		}
	}
	return all
}

// target reads what a purge is about: REPOSITORY, REPOSITORY:TAG,
// REPOSITORY@DIGEST or DIGEST.
func target(cfg config.Config, text string) (pull.Target, error) {
	if d, err := digest.Parse(text); err == nil {
		return pull.Target{Ref: d.String()}, nil
	}
	repository, ref := text, ""
	if name, d, ok := strings.Cut(text, "@"); ok {
		if _, err := digest.Parse(d); err != nil {
			return pull.Target{}, usageError(fmt.Sprintf("%q has a malformed digest: write it as sha256:<64 hexadecimal digits>", text))
		}
		repository, ref = name, d
	} else if colon := strings.LastIndex(text, ":"); colon > strings.LastIndex(text, "/") {
		repository, ref = text[:colon], text[colon+1:]
		if ref == "" {
			return pull.Target{}, usageError(fmt.Sprintf("%q has no tag behind its colon", text))
		}
	}
	repo, err := repositoryOf(cfg, repository)
	if err != nil {
		return pull.Target{}, err
	}
	return pull.Target{Repository: repo, Ref: ref}, nil
}

// repositoryOf reads a repository as clients write it: the registry's host
// first, or else one of the default upstream.
func repositoryOf(cfg config.Config, text string) (pull.Repository, error) {
	upstream, name, _ := strings.Cut(text, "/")
	for _, u := range cfg.Upstreams {
		if u.Name == upstream || slices.Contains(u.Aliases, upstream) {
			return inLibrary(u.Name, name, text)
		}
	}
	if strings.ContainsAny(upstream, ".:") || upstream == "localhost" {
		return inLibrary(upstream, name, text) // one that is configured no more
	}
	for _, u := range cfg.Upstreams {
		if u.Default {
			return inLibrary(u.Name, text, text)
		}
	}
	return pull.Repository{}, usageError(fmt.Sprintf("%q names no upstream: write it as ghcr.io/org/app", text))
}

func inLibrary(upstream, name, text string) (pull.Repository, error) {
	if name == "" || strings.HasSuffix(name, "/") {
		return pull.Repository{}, usageError(fmt.Sprintf("%q names no repository: write it as ghcr.io/org/app", text))
	}
	if upstream == "docker.io" && !strings.Contains(name, "/") {
		name = "library/" + name
	}
	return pull.Repository{Upstream: upstream, Name: name}, nil
}

// image reads what a pin is on: REPOSITORY:TAG or REPOSITORY@DIGEST.
func image(cfg config.Config, text string) (pull.Reference, error) {
	t, err := target(cfg, text)
	if err != nil {
		return pull.Reference{}, err
	}
	if t.Ref == "" || t.Repository == (pull.Repository{}) {
		return pull.Reference{}, usageError(fmt.Sprintf("%q names no image: write it as ghcr.io/org/app:TAG or ghcr.io/org/app@DIGEST", text))
	}
	return pull.Reference(t), nil
}

// oneArgument is for commands about one thing.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError(fmt.Sprintf("name one %s, as in: %s", what, cmd.Example))
		}
		return nil
	}
}
