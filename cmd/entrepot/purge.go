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
	cmd := newCacheCommand("purge IMAGE|REPOSITORY|DIGEST", "Remove an image, a repository or a digest from the cache", oneArgument("image, repository or digest"),
		func(cmd *cobra.Command, cfg config.Config, c admin.Cache, args []string) error {
			target, err := parseTarget(cfg, args[0])
			if err != nil {
				return err
			}
			purged, err := c.Purge(cmd.Context(), target, dryRun)
			if errors.Is(err, retention.ErrNotCached) {
				return fmt.Errorf("%s is not in the cache: \"entrepot ls\" lists the images that are", args[0])
			}
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			for _, tag := range purged.Tags {
				fmt.Fprintf(out, "tag       %s\n", tag)
			}
			for _, manifest := range purged.Manifests {
				fmt.Fprintf(out, "manifest  %s\n", manifest)
			}
			for _, subject := range purged.Referrers {
				fmt.Fprintf(out, "referrers of %s\n", subject)
			}
			verb := "purged"
			if dryRun {
				verb = "would purge"
			}
			counts := fmt.Sprintf("%d tags, %d manifests and %d files", len(purged.Tags), len(purged.Manifests), purged.Blobs)
			if purged.Drafts > 0 {
				counts = fmt.Sprintf("%d tags, %d manifests, %d files and %d unfinished downloads", len(purged.Tags), len(purged.Manifests), purged.Blobs, purged.Drafts)
			}
			_, err = fmt.Fprintf(out, "%s %s, %s\n", verb, counts, size(purged.Bytes))
			return err
		})
	cmd.Example = "entrepot purge docker.io/library/alpine:3"
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would be removed, and remove nothing")
	return cmd
}
