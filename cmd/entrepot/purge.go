package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/retention"
)

func newPurge() *cobra.Command {
	var dryRun bool
	cmd := newCacheCommand("purge IMAGE|REPOSITORY|DIGEST", "Forget an image, a repository or a digest", oneArgument("image, repository or digest"),
		func(cmd *cobra.Command, cfg config.Config, c admin.Cache, args []string) error {
			what, err := parseTarget(cfg, args[0])
			if err != nil {
				return err
			}
			gone, err := c.Purge(cmd.Context(), what, dryRun)
			if errors.Is(err, retention.ErrNotCached) {
				return fmt.Errorf("nothing is kept of %s: entrepot ls lists what is", args[0])
			}
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			for _, tag := range gone.Tags {
				fmt.Fprintf(out, "tag       %s\n", tag)
			}
			for _, manifest := range gone.Manifests {
				fmt.Fprintf(out, "manifest  %s\n", manifest)
			}
			verb := "purged"
			if dryRun {
				verb = "would purge"
			}
			_, err = fmt.Fprintf(out, "%s %d tags, %d manifests and %d files, %s\n", verb, len(gone.Tags), len(gone.Manifests), gone.Blobs, size(gone.Bytes))
			return err
		})
	cmd.Example = "entrepot purge docker.io/library/alpine:3"
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would go")
	return cmd
}
