package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/retention"
)

func newPurge() *cobra.Command {
	var dryRun, all bool
	one := oneArgument("image, repository or digest")
	onlyOne := func(cmd *cobra.Command, args []string) error {
		switch {
		case !all:
			return one(cmd, args)
		case len(args) > 0:
			return usageError(fmt.Sprintf("--all stands alone: it removes everything, and not only %q", args[0]))
		}
		return nil
	}
	cmd := newCacheCommand("purge IMAGE|REPOSITORY|DIGEST", "Remove an image, a repository or a digest from the cache", onlyOne,
		func(cmd *cobra.Command, cfg config.Config, c admin.Cache, args []string) error {
			target, name := retention.Everything(), ""
			if !all {
				var err error
				name = args[0]
				if target, err = parseTarget(cfg, name); err != nil {
					return err
				}
			} else if !dryRun && !confirm(cmd.InOrStdin(), cmd.ErrOrStderr(), "This removes everything from the cache. Type yes to go on: ") {
				return errors.New("nothing was removed")
			}
			purged, err := c.Purge(cmd.Context(), target, dryRun)
			switch {
			case errors.Is(err, retention.ErrNotCached) && all:
				return errors.New("the cache is empty")
			case errors.Is(err, retention.ErrNotCached):
				return fmt.Errorf("%s is not in the cache: \"entrepot ls\" lists the images that are", name)
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
	cmd.Flags().BoolVar(&all, "all", false, "remove everything; on a terminal, it asks first")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would be removed, and remove nothing")
	return cmd
}

// confirm asks a question on a terminal, and says whether the answer is yes.
// Where there is no terminal, there is nobody to ask, and the command has said
// what it wants.
func confirm(in io.Reader, out io.Writer, question string) bool {
	file, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return true
	}
	return isYes(in, out, question)
}

func isYes(in io.Reader, out io.Writer, question string) bool {
	_, _ = fmt.Fprint(out, question)
	answer, _ := bufio.NewReader(in).ReadString('\n')
	return strings.TrimSpace(answer) == "yes"
}
