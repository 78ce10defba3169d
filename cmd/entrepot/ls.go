package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/retention"
)

func newLs() *cobra.Command {
	var output string
	cmd := newCacheCommand("ls", "List the images that are kept", noArguments, func(cmd *cobra.Command, _ config.Config, c admin.Cache, _ []string) error {
		if output != "table" && output != "json" {
			return unknownWord("output", output, []string{"table", "json"})
		}
		list, err := c.Inventory(cmd.Context())
		if err != nil {
			return err
		}
		if output == "json" {
			return writeIndented(cmd.OutOrStdout(), list)
		}
		return writeTable(cmd.OutOrStdout(), list, time.Now())
	})
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func writeIndented(w io.Writer, v any) error {
	lines := json.NewEncoder(w)
	lines.SetIndent("", "  ")
	return lines.Encode(v)
}

// writeTable writes a line for each image. ALONE is what would become free.
func writeTable(w io.Writer, list retention.Inventory, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "IMAGE\tDIGEST\tSIZE\tALONE\tLAST PULLED\tFRESH\tPINNED\tWHOLE")
	for _, k := range list.Images {
		name := k.Upstream + "/" + k.Repository
		if len(k.Tags) > 0 {
			name += ":" + strings.Join(k.Tags, ",")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, short(k.Digest), size(k.Size), size(k.Alone),
			since(k.LastPulled, now), freshness(k, now), whether(k.Pinned), wholeness(k))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	bound := ""
	if list.MaxBytes > 0 {
		bound = " of at most " + size(list.MaxBytes)
	}
	_, err := fmt.Fprintf(w, "%d images, %s%s; %s of that belong to no image\n", len(list.Images), size(list.Bytes), bound, size(list.Strays))
	return err
}

func short(d metadata.Digest) string {
	return string(d.Algorithm()) + ":" + d.Encoded()[:12]
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func since(t, now time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return humanize.RelTime(t, now, "ago", "from now")
}

func freshness(k retention.CachedImage, now time.Time) string {
	switch {
	case len(k.Tags) == 0:
		return "by digest"
	case !k.GoneSince.IsZero():
		return "deleted upstream " + since(k.GoneSince, now)
	case k.Fresh:
		return "yes"
	}
	return "checked " + since(k.CheckedAt, now)
}

// wholeness says how much of what pulling again may ask for is still to be
// learnt.
func wholeness(k retention.CachedImage) string {
	if n := len(k.Unlearnt); n > 0 {
		return fmt.Sprintf("no, %d to learn", n)
	}
	return whether(k.Whole)
}

func whether(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
