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
	"github.com/entrepot/entrepot/proxy/bundle"
	"github.com/entrepot/entrepot/proxy/transfer"
)

func newBundleImport() *cobra.Command {
	var opts transfer.ImportOptions
	var output, as string
	cmd := newCommandOn(findCacheToImport, "import FILE|-", "Put the images of a bundle into the cache, and pin them", oneArgument("file"),
		func(cmd *cobra.Command, _ config.Config, c admin.Cache, args []string) error {
			if output != "table" && output != "json" {
				return unknownValue("output", output, []string{"table", "json"})
			}
			in, closeFile, err := openImport(cmd.InOrStdin(), args[0], as)
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
	cmd.Flags().StringVar(&as, "as", "", "for a layout of another tool: the registry of names that have none, such as docker.io, or a whole name")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

// openImport opens a bundle, or the layout of another tool as one: the order of
// that is another, so it is read twice.
func openImport(stdin io.Reader, name, as string) (in io.Reader, closeFile func(), err error) {
	in, closeFile, err = openBundle(stdin, name)
	file, ok := in.(*os.File)
	if err != nil || !ok || name == "-" {
		return in, closeFile, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	own, err := bundle.NewReader(file).Contents()
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	if own != nil {
		if as != "" {
			return nil, nil, usageError(fmt.Sprintf("%s says itself what its images are called: --as is for files that other tools have written", name))
		}
		return file, closeFile, nil
	}
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	foreign, err := bundle.OpenForeign(file, as, info.ModTime())
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	out, to := io.Pipe()
	go func() { to.CloseWithError(foreign.Write(to)) }()
	return out, func() { out.Close(); file.Close() }, nil
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
