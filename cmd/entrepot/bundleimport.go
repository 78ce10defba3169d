package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/transfer"
)

func newBundleImport() *cobra.Command {
	var opts transfer.ImportOptions
	var output string
	cmd := newCommandOn(fillCache, "import FILE|-", "Put the images of a bundle into the cache, and pin them", oneArgument("file"),
		func(cmd *cobra.Command, _ config.Config, c admin.Cache, args []string) error {
			if output != "table" && output != "json" {
				return unknownValue("output", output, []string{"table", "json"})
			}
			in, closeFile, err := openBundle(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			defer closeFile()
			done, err := c.Import(cmd.Context(), in, opts, newImportBar(cmd.ErrOrStderr()))
			if err != nil && !errors.Is(err, transfer.ErrRefused) {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if output == "json" {
				return errors.Join(err, writeIndented(cmd.OutOrStdout(), done))
			}
			return errors.Join(err, writeImported(cmd.OutOrStdout(), done))
		})
	cmd.Example = "entrepot bundle import images.tar"
	cmd.Flags().BoolVar(&opts.NoPin, "no-pin", false, "do not pin the images: they may be evicted, and can't be fetched again")
	cmd.Flags().BoolVar(&opts.Force, "force", false, "move a tag although what is here is newer")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func writeImported(w io.Writer, done transfer.Imported) (err error) {
	imported := 0
	for _, image := range done.Images {
		if image.Refused == "" {
			imported++
			_, err = fmt.Fprintf(w, "imported  %s  %s\n", image.Name, shortDigest(image.Digest))
		} else {
			_, err = fmt.Fprintf(w, "refused   %s  %s\n", image.Name, image.Refused)
		}
		if err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(w, "%d of %d images, %s read, %s of that new\n", imported, len(done.Images), size(done.Bytes), size(done.Written))
	return err
}

// newImportBar returns a function that shows the progress of an import on a
// terminal, and shows nothing elsewhere.
func newImportBar(w io.Writer) func(transfer.ImportProgress) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func(transfer.ImportProgress) {}
	}
	bar := progressbar.NewOptions64(1, progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true),
		progressbar.OptionSetDescription("importing"), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
	return func(p transfer.ImportProgress) {
		bar.ChangeMax64(max(p.Total, 1))
		_ = bar.Set64(p.Bytes) // an import goes on without its bar
	}
}
