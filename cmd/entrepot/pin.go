package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/warm"
)

func newPin() *cobra.Command {
	cmd := newCacheCommand("pin IMAGE", "Fetch an image completely and keep it until it is unpinned", oneArgument("image"),
		func(cmd *cobra.Command, cfg config.Config, c admin.Cache, args []string) error {
			pinned, err := parseImage(cfg, args[0])
			if err != nil {
				return err
			}
			done, err := c.Pin(cmd.Context(), pinned)
			if errors.Is(err, warm.ErrIncomplete) {
				// It is pinned, and the rest is fetched once the upstream can be
				// reached.
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "pinned %s, which is not complete yet: a running entrepot will fetch the rest\n  %v\n", pinned, err)
				return err
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "pinned %s: %d manifests and %d blobs, %d of them (%s) fetched now\n",
				pinned, done.Manifests, done.Blobs, done.Fetched, size(done.Bytes))
			return err
		})
	cmd.Example = "entrepot pin docker.io/library/alpine:3"
	return cmd
}

func newUnpin() *cobra.Command {
	cmd := newCacheCommand("unpin IMAGE", "Remove the pin that the pin command set on an image", oneArgument("image"),
		func(cmd *cobra.Command, cfg config.Config, c admin.Cache, args []string) error {
			image, err := parseImage(cfg, args[0])
			if err != nil {
				return err
			}
			unpinned, err := c.Unpin(cmd.Context(), image)
			switch {
			case err != nil:
				return err
			case unpinned:
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "unpinned %s\n", image)
				return err
			case pinned(cfg)(image.Repository, image.Ref):
				return fmt.Errorf("%s is pinned by the configuration: remove it from pins there", image)
			}
			return fmt.Errorf("%s is not pinned: \"entrepot pins\" lists the images that are", image)
		})
	cmd.Example = "entrepot unpin docker.io/library/alpine:3"
	return cmd
}

func newPins() *cobra.Command {
	return newCacheCommand("pins", "List the images pinned by the pin command and by the configuration", noArguments,
		func(cmd *cobra.Command, cfg config.Config, c admin.Cache, _ []string) error {
			pins, err := c.Pins()
			if err != nil {
				return err
			}
			for _, pin := range pins {
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n", pin)
			}
			for _, pattern := range cfg.Pins {
				fmt.Fprintf(cmd.OutOrStdout(), "%s (configuration)\n", pattern)
			}
			return nil
		})
}

// pinned returns a function that reports whether the configuration pins an
// image.
func pinned(cfg config.Config) func(repo metadata.Repository, ref string) bool {
	pins := cfg.PinList()
	return func(repo metadata.Repository, ref string) bool {
		return slices.ContainsFunc(pins, func(p config.Pin) bool { return p.Matches(repo.Upstream, repo.Name, ref) })
	}
}

// exactPins returns the configured pins that name one image each, which can be
// fetched before a client asks for it.
func exactPins(cfg config.Config) []metadata.Reference {
	var all []metadata.Reference
	for _, p := range cfg.PinList() {
		if ref, ok := p.Exact(); ok {
			all = append(all, metadata.Reference{Repository: metadata.Repository{Upstream: p.Upstream, Name: p.Repository}, Ref: ref})
		}
	}
	return all
}
