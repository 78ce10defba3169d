package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/pull"
)

func newPin() *cobra.Command {
	cmd := newKeeping("pin IMAGE", "Keep an image whole until it is unpinned", oneArgument("image"),
		func(cmd *cobra.Command, cfg config.Config, k proxy.Keeper, args []string) error {
			what, err := image(cfg, args[0])
			if err != nil {
				return err
			}
			done, err := k.Pin(cmd.Context(), what)
			if errors.Is(err, pull.ErrNotWhole) {
				// The pin holds: the rest comes when the upstream can be asked.
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "pinned %s, which is not whole yet: a running entrepot makes it so\n  %v\n", what, err)
				return err
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "pinned %s: %d manifests and %d blobs are here, %d of them (%s) fetched now\n",
				what, done.Manifests, done.Blobs, done.Fetched, size(done.Bytes))
			return err
		})
	cmd.Example = "entrepot pin docker.io/library/alpine:3"
	return cmd
}

func newUnpin() *cobra.Command {
	cmd := newKeeping("unpin IMAGE", "End a pin that the pin command made", oneArgument("image"),
		func(cmd *cobra.Command, cfg config.Config, k proxy.Keeper, args []string) error {
			what, err := image(cfg, args[0])
			if err != nil {
				return err
			}
			was, err := k.Unpin(cmd.Context(), what)
			switch {
			case err != nil:
				return err
			case was:
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "unpinned %s\n", what)
				return err
			case pinned(cfg)(what.Repository, what.Ref):
				return fmt.Errorf("%s is pinned by the configuration: take it out of pins there", what)
			}
			return fmt.Errorf("%s is not pinned: entrepot pins lists what is", what)
		})
	cmd.Example = "entrepot unpin docker.io/library/alpine:3"
	return cmd
}

func newPins() *cobra.Command {
	return newKeeping("pins", "List what is pinned, by commands and by the configuration", noArguments,
		func(cmd *cobra.Command, cfg config.Config, k proxy.Keeper, _ []string) error {
			pins, err := k.Pins()
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
