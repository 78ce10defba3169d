package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/entrepot/entrepot/proxy/bundle"
)

func newBundle() *cobra.Command {
	return newGroup("bundle", "Carry images across a gap in one file", newBundleCreate(), newBundleImport(), newBundleVerify(), newBundleList(), newBundleHave())
}

// errNotWhole is the result of a check that has said why.
var errNotWhole = errors.New("not every image is whole")

func newBundleVerify() *cobra.Command {
	var output, against string
	cmd := &cobra.Command{
		Use:     "verify FILE|-",
		Short:   "Read a bundle to its end, prove every byte, and say whether each image is whole",
		Args:    oneArgument("file"),
		Example: "entrepot bundle verify images.tar",
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "table" && output != "json" {
				return unknownValue("output", output, []string{"table", "json"})
			}
			var has func(bundle.Digest) bool
			if against != "" {
				have, err := readHave(against)
				if err != nil {
					return err
				}
				has = func(d bundle.Digest) bool { return have[d] }
			}
			in, closeFile, err := openBundle(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			defer closeFile()
			whole := sha256.New()
			report, err := bundle.Verify(io.TeeReader(in, whole), has)
			if err == nil {
				_, err = io.Copy(whole, in) // what a tar may have behind its end
			}
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			file := "sha256:" + hex.EncodeToString(whole.Sum(nil))
			if output == "json" {
				err = writeIndented(cmd.OutOrStdout(), struct {
					bundle.Report
					Whole bool   `json:"whole"`
					File  string `json:"file"` // the digest of the file
				}{report, report.Whole(), file})
			} else {
				err = writeReport(cmd.OutOrStdout(), report, file)
			}
			if err == nil && !report.Whole() {
				err = fmt.Errorf("%s: %w", args[0], errNotWhole)
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.Flags().StringVar(&against, "against", "", "what the other side has: an earlier bundle, its entrepot.json, or the output of \"bundle have\"")
	return cmd
}

func newBundleList() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "ls FILE|-",
		Short:   "List the images of a bundle without proving them",
		Args:    oneArgument("file"),
		Example: "entrepot bundle ls images.tar",
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "table" && output != "json" {
				return unknownValue("output", output, []string{"table", "json"})
			}
			in, closeFile, err := openBundle(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			defer closeFile()
			c, err := bundle.ReadContents(in)
			switch {
			case err != nil:
				return fmt.Errorf("%s: %w", args[0], err)
			case output == "json":
				return writeIndented(cmd.OutOrStdout(), c)
			}
			return writeContents(cmd.OutOrStdout(), c)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

// openBundle opens a file, or takes standard input for -.
func openBundle(stdin io.Reader, name string) (in io.Reader, closeFile func(), err error) {
	if name == "-" {
		return stdin, func() {}, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	return file, func() { file.Close() }, nil
}

// readHave reads what the other side has from a file.
func readHave(name string) (bundle.Have, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	have, err := bundle.ReadHave(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return have, nil
}

// writeReport says what has been proven. What was left out or is assumed has
// columns only if there is any, and digests are in JSON and in "bundle ls": a
// line fits a terminal.
func writeReport(w io.Writer, r bundle.Report, file string) error {
	leftOut := slices.ContainsFunc(r.Images, func(v bundle.Verdict) bool { return v.LeftOut > 0 })
	assumed := slices.ContainsFunc(r.Images, func(v bundle.Verdict) bool { return v.Assumed > 0 })
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, manifests, blobs, bytes, referrers, left, taken, whole any) {
		fmt.Fprintf(table, "%v\t%v\t%v\t%v\t%v\t", name, manifests, blobs, bytes, referrers)
		if leftOut {
			fmt.Fprintf(table, "%v\t", left)
		}
		if assumed {
			fmt.Fprintf(table, "%v\t", taken)
		}
		fmt.Fprintf(table, "%v\n", whole)
	}
	row("IMAGE", "MANIFESTS", "BLOBS", "SIZE", "REFERRERS", "LEFT OUT", "ASSUMED", "WHOLE")
	for _, v := range r.Images {
		row(v.Name, v.Manifests, v.Blobs, size(v.Bytes), v.Referrers, v.LeftOut, v.Assumed, yesNo(len(v.Missing) == 0))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, v := range r.Images {
		for _, reason := range v.Missing {
			fmt.Fprintf(w, "%s: %s\n", v.Name, reason)
		}
	}
	for _, d := range r.NotThere {
		fmt.Fprintf(w, "%s is assumed to be on the other side, and is not\n", d)
	}
	_, err := fmt.Fprintf(w, "%d images; %d manifests and blobs with %s are proven\nThe digest of the file is %s\n", len(r.Images), r.Blobs, size(r.Bytes), file)
	return err
}

func writeContents(w io.Writer, c *bundle.Contents) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "IMAGE\tDIGEST\tPLATFORMS\tREFERRERS")
	for _, i := range c.Images {
		platforms := "all"
		if len(i.Platforms) > 0 {
			platforms = strings.Join(i.Platforms, ",")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", i.Name(), shortDigest(i.Manifest.Digest), platforms, yesNo(i.Referrers))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if c.FormatVersion == 0 {
		_, err := fmt.Fprintf(w, "%d images, in a layout that another tool has written\n", len(c.Images))
		return err
	}
	_, err := fmt.Fprintf(w, "%d images of %s, %d manifests and blobs with %s", len(c.Images), c.Created.UTC().Format(time.DateTime), len(c.Content), size(c.Bytes()))
	if err == nil && len(c.Assumed) > 0 {
		_, err = fmt.Fprintf(w, "; %d more have to be on the other side", len(c.Assumed))
	}
	if err == nil {
		_, err = fmt.Fprintln(w)
	}
	return err
}
