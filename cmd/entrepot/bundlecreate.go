package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/entrepot/entrepot/cmd/entrepot/imagelist"
	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/bundle"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/transfer"
)

// bundleFlags are what "bundle create" is told.
type bundleFlags struct {
	list, since, have string
	platforms         []string
	all, pinned       bool
	referrers         bool
}

func newBundleCreate() *cobra.Command {
	var flags bundleFlags
	args := func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return usageError("name the file, as in: " + cmd.Example)
		case len(args) == 1 && !flags.all && !flags.pinned && flags.list == "":
			return usageError("name images, a list of them with -f, --all or --pinned")
		case flags.since != "" && flags.have != "":
			return usageError("--since and --have both say what the other side has: name one")
		}
		return nil
	}
	cmd := newCacheCommand("create FILE|- [IMAGE...]", "Write images, and what refers to them, to one file", args,
		func(cmd *cobra.Command, cfg config.Config, c admin.Cache, args []string) error {
			request, err := flags.request(cfg, cmd.InOrStdin(), args[1:])
			if err != nil {
				return err
			}
			return createBundle(cmd, c, request, args[0])
		})
	cmd.Example = "entrepot bundle create images.tar docker.io/library/alpine:3"
	cmd.Flags().StringVarP(&flags.list, "file", "f", "", "a list of images, one a line; - is standard input")
	cmd.Flags().BoolVar(&flags.all, "all", false, "every image that is cached")
	cmd.Flags().BoolVar(&flags.pinned, "pinned", false, "every image that is pinned")
	cmd.Flags().StringArrayVar(&flags.platforms, "platform", nil, "a platform, such as linux/amd64; may be repeated; without it, all of them")
	cmd.Flags().BoolVar(&flags.referrers, "referrers", true, "with signatures, SBOMs and whatever else refers to the images")
	cmd.Flags().StringVar(&flags.since, "since", "", "leave out what this earlier bundle has; its entrepot.json is enough")
	cmd.Flags().StringVar(&flags.have, "have", "", "leave out what is in this output of \"bundle have\"")
	return cmd
}

// request returns what is asked for.
func (f bundleFlags) request(cfg config.Config, stdin io.Reader, args []string) (transfer.CreateRequest, error) {
	request := transfer.CreateRequest{All: f.all, Pinned: f.pinned, Referrers: f.referrers}
	var err error
	if request.Platforms, err = retention.ParsePlatforms(f.platforms); err != nil {
		return request, usageError(err.Error())
	}
	var names []imagelist.Entry
	for _, name := range args {
		names = append(names, imagelist.Entry{Text: name})
	}
	if f.list != "" {
		listed, misread, err := readEntries(stdin, f.list, imagelist.Lines)
		if err := errors.Join(append(misread, err)...); err != nil {
			return request, err
		}
		names = append(names, listed...)
	}
	var misread []error // all at once: a list is mended once
	for _, name := range names {
		s, err := parseSelection(cfg, name.Text)
		switch {
		case err != nil && name.File != "":
			misread = append(misread, fmt.Errorf("%s: %w", name.Where(), err))
			continue
		case err != nil:
			misread = append(misread, err)
			continue
		}
		s.Platforms, s.Referrers = request.Platforms, request.Referrers
		request.Images = append(request.Images, s)
		request.Asked = append(request.Asked, name.Text)
	}
	if len(misread) > 0 {
		return request, errors.Join(misread...)
	}
	for flag, is := range map[string]bool{"--all": f.all, "--pinned": f.pinned} {
		if is {
			request.Asked = append(request.Asked, flag)
		}
	}
	if file := cmp.Or(f.since, f.have); file != "" {
		if request.Have, err = readHave(file); err != nil {
			return request, err
		}
	}
	return request, nil
}

// parseSelection parses REPOSITORY:TAG, REPOSITORY@DIGEST, or REPOSITORY:TAG@DIGEST.
func parseSelection(cfg config.Config, text string) (retention.Selection, error) {
	name, at, both := strings.Cut(text, "@")
	if both = both && strings.LastIndexByte(name, ':') > strings.LastIndexByte(name, '/'); !both {
		image, err := parseImage(cfg, text)
		return retention.Selection{Image: image}, err
	}
	d, err := digest.Parse(at)
	if err != nil {
		return retention.Selection{}, usageError(fmt.Sprintf("%q has a malformed digest: write it as sha256:<64 hexadecimal digits>", text))
	}
	image, err := parseImage(cfg, name)
	return retention.Selection{Image: image, At: d}, err
}

// createBundle writes the file under another name until it is whole.
func createBundle(cmd *cobra.Command, c admin.Cache, request transfer.CreateRequest, name string) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process, whatever it waits for
	say, whole := cmd.OutOrStdout(), sha256.New()
	count := &countingWriter{}
	write := func(to io.Writer) error { return c.Create(ctx, request, io.MultiWriter(to, whole, count)) }
	var err error
	if name == "-" {
		if file, ok := say.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
			return usageError("a bundle is not written to a terminal: name a file, or pipe it somewhere")
		}
		err = write(say)
		name, say = "standard output", cmd.ErrOrStderr()
	} else {
		err = writeWhole(name, write)
	}
	if err != nil && ctx.Err() != nil && cmd.Context().Err() == nil {
		return fmt.Errorf("interrupted: %s has no whole bundle", name)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(say, "%s: %s\nThe digest of the file is sha256:%s\n", name, size(count.n), hex.EncodeToString(whole.Sum(nil)))
	return err
}

// writeWhole writes a file that has its name only once it is whole, and durable.
func writeWhole(name string, write func(io.Writer) error) (err error) {
	part := name + ".part"
	file, err := os.Create(part)
	if err != nil {
		return err
	}
	if err = errors.Join(write(file), file.Sync(), file.Close()); err == nil {
		err = os.Rename(part, name)
	}
	if err != nil {
		os.Remove(part)
	}
	return err
}

// countingWriter counts bytes.
type countingWriter struct{ n int64 }

func (c *countingWriter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func newBundleHave() *cobra.Command {
	cmd := newCacheCommand("have", "Print the digests of what is cached, for \"bundle create --have\"", noArguments,
		func(cmd *cobra.Command, _ config.Config, c admin.Cache, _ []string) error {
			out := bufio.NewWriter(cmd.OutOrStdout())
			err := c.Have(cmd.Context(), func(d bundle.Digest) error {
				_, err := fmt.Fprintln(out, d)
				return err
			})
			return errors.Join(err, out.Flush())
		})
	cmd.Example = "entrepot bundle have > have.txt"
	return cmd
}
