package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/retention"
)

func newScrub() *cobra.Command {
	var rate string
	cmd := newCacheCommand("scrub", "Verify everything in the cache and quarantine what is damaged", noArguments,
		func(cmd *cobra.Command, _ config.Config, c admin.Cache, _ []string) error {
			perSecond, err := config.ParseSize(rate)
			if err != nil || perSecond.Percent != 0 {
				return usageError(fmt.Sprintf("--rate %q is not a number of bytes a second, such as 50MiB", rate))
			}
			started := time.Now()
			bar := newProgressBar(cmd.ErrOrStderr())
			done, err := c.Scrub(cmd.Context(), perSecond.Bytes, bar)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			for _, d := range done.Damaged {
				fmt.Fprintf(out, "damaged  %s\n", d)
			}
			fmt.Fprintf(out, "scrubbed %d files, %s, in %s: %d damaged and quarantined, to be fetched again on the next pull; %d could not be read\n",
				done.Files, size(done.Bytes), time.Since(started).Round(time.Millisecond), len(done.Damaged), done.Unreadable)
			if done.Unreadable > 0 {
				return fmt.Errorf("%d files could not be read: the server's log has the reasons", done.Unreadable)
			}
			return nil
		})
	cmd.Flags().StringVar(&rate, "rate", "0", "bytes to read per second at most, such as 50MiB; 0 means no limit")
	return cmd
}

// newProgressBar returns a function that shows the progress of a scrub on a
// terminal, and shows nothing elsewhere.
func newProgressBar(w io.Writer) func(retention.Scrubbed) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func(retention.Scrubbed) {}
	}
	bar := progressbar.NewOptions64(1, progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true),
		progressbar.OptionSetDescription("scrubbing"), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
	return func(s retention.Scrubbed) {
		bar.ChangeMax64(s.TotalBytes)
		_ = bar.Set64(s.Bytes) // a scrub goes on without its bar
	}
}
