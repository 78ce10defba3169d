package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/entrepot/entrepot/cmd/entrepot/imagelist"
	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/warm"
)

// fetchFlags say what is to be fetched, and how.
type fetchFlags struct {
	files, kubernetes, compose []string
	platforms                  []string
	referrers, pin             bool
	jobs                       int
	maxWait                    time.Duration
	output                     string
}

func (f *fetchFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&f.files, "file", "f", nil, "list of images, one a line, or - for standard input")
	flags.StringArrayVar(&f.kubernetes, "kubernetes", nil, "manifests or a rendered chart, a file or a folder, or - for standard input")
	flags.StringArrayVar(&f.compose, "compose", nil, "Compose file, or - for standard input")
	flags.StringArrayVar(&f.platforms, "platform", nil, "platform to fetch of images that have several, such as linux/arm64; all if none is named")
	flags.BoolVar(&f.referrers, "referrers", true, "fetch signatures, SBOMs and whatever else refers to the images")
	flags.BoolVar(&f.pin, "pin", false, "keep the images until they are unpinned")
	flags.IntVar(&f.jobs, "jobs", warm.DefaultJobs, "requests at a time")
	flags.DurationVar(&f.maxWait, "max-wait", time.Hour, "how long to wait for an upstream that limits its rate")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json, which is one object for each event")
}

// fetchAttempts is how often something is requested that cannot be had now.
const fetchAttempts = 4

func newWarm() *cobra.Command {
	var f fetchFlags
	cmd := newFetchCommand("warm [IMAGE | -]...", "Fetch images before anybody asks for them", cobra.ArbitraryArgs,
		func(cmd *cobra.Command, cfg config.Config, c admin.Cache, args []string) error {
			switch {
			case f.output != "text" && f.output != "json":
				return unknownValue("output", f.output, []string{"text", "json"})
			case f.jobs < 1:
				return usageError("--jobs is at least 1")
			}
			wanted, misread, err := f.wanted(cmd, cfg, args)
			if err != nil {
				return err
			}
			for _, m := range misread {
				fmt.Fprintf(cmd.ErrOrStderr(), "entrepot: %v\n", m)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			shown := newFetchDisplay(f.output, cmd.OutOrStdout())
			result, err := c.FetchAll(ctx, wanted, warm.FetchOptions{Jobs: f.jobs, MaxWait: f.maxWait, Attempts: fetchAttempts, Report: shown.report})
			if endErr := shown.end(result, err == nil); endErr != nil {
				return endErr
			}
			if len(misread) > 0 {
				err = errors.Join(err, fmt.Errorf("%d of what was named is no image", len(misread)))
			}
			if ctx.Err() != nil && cmd.Context().Err() == nil {
				return errors.New("interrupted: what has come is kept, and is not fetched again")
			}
			return errors.Join(result.Err(), err)
		})
	f.add(cmd.Flags())
	cmd.Example = "entrepot warm --platform linux/amd64 --pin docker.io/library/alpine:3 ghcr.io/org/app:v1.* -f images.txt"
	return cmd
}

// wanted reads what the arguments and the files name. What is no image is in
// misread, with its place.
func (f *fetchFlags) wanted(cmd *cobra.Command, cfg config.Config, args []string) (all []warm.Wanted, misread []error, err error) {
	platforms, err := retention.ParsePlatforms(f.platforms)
	if err != nil {
		return nil, nil, usageError("--platform: " + err.Error())
	}
	entries, misread, err := f.entries(cmd.InOrStdin(), args)
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	for _, e := range entries {
		of, err := parseWanted(cfg, e.Text)
		if err != nil {
			if e.File != "" {
				err = fmt.Errorf("%s: %w", e.Where(), err)
			}
			misread = append(misread, err)
			continue
		}
		of.Platforms, of.Referrers = platforms, f.referrers
		if key := of.Image.String() + "@" + of.At.String(); !seen[key] {
			seen[key] = true
			all = append(all, warm.Wanted{Selection: of, Pin: f.pin})
		}
	}
	if len(all) == 0 && len(misread) == 0 {
		return nil, nil, usageError("name an image, as in: " + cmd.Example)
	}
	return all, misread, nil
}

// entries are what the arguments and the files name.
func (f *fetchFlags) entries(stdin io.Reader, args []string) (all []imagelist.Entry, misread []error, err error) {
	files := slices.Clone(f.files)
	for _, arg := range args {
		if arg == "-" {
			files = append(files, arg)
		} else {
			all = append(all, imagelist.Entry{Text: arg})
		}
	}
	for _, source := range []struct {
		files []string
		read  func(io.Reader, string) ([]imagelist.Entry, error)
	}{
		{files, imagelist.Lines},
		{f.kubernetes, imagelist.Kubernetes},
		{f.compose, func(r io.Reader, file string) ([]imagelist.Entry, error) {
			return imagelist.Compose(r, file, os.LookupEnv)
		}},
	} {
		for _, path := range source.files {
			found, broken, err := readEntries(stdin, path, source.read)
			if err != nil {
				return nil, nil, err
			}
			all, misread = append(all, found...), append(misread, broken...)
		}
	}
	return all, misread, nil
}

// readEntries reads a file, the YAML and JSON of a folder, or standard input. A
// file that cannot be read to its end is in misread; one that is not there is an
// error.
func readEntries(stdin io.Reader, path string, read func(io.Reader, string) ([]imagelist.Entry, error)) (all []imagelist.Entry, misread []error, err error) {
	if path == "-" {
		found, err := read(stdin, "standard input")
		return found, appendError(nil, err), nil
	}
	err = filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		isNamed := file == path
		if err != nil || entry.IsDir() || !isNamed && !slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(file))) {
			return err
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		found, err := read(bytes.NewReader(content), file)
		all, misread = append(all, found...), appendError(misread, err)
		return nil
	})
	return all, misread, err
}

func appendError(to []error, err error) []error {
	if err == nil {
		return to
	}
	return append(to, err)
}
