package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/retention"
)

func newLs() *cobra.Command {
	var output string
	cmd := newCacheCommand("ls", "List the images in the cache, and unfinished downloads", noArguments, func(cmd *cobra.Command, _ config.Config, c admin.Cache, _ []string) error {
		if output != "table" && output != "json" {
			return unknownValue("output", output, []string{"table", "json"})
		}
		if output == "json" {
			list, err := c.Inventory(cmd.Context())
			if err != nil {
				return err
			}
			return writeIndented(cmd.OutOrStdout(), list)
		}
		return writeList(cmd.OutOrStdout(), func(each func(retention.Item) error) error { return c.List(cmd.Context(), each) }, time.Now())
	})
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func writeIndented(w io.Writer, v any) error {
	lines := json.NewEncoder(w)
	lines.SetIndent("", "  ")
	return lines.Encode(v)
}

// writeList writes a line for each image, as they come. UNSHARED is the size of
// the blobs that no other image has: purging the image would free that much.
func writeList(w io.Writer, list func(each func(retention.Item) error) error, now time.Time) error {
	images, table := 0, &columns{w: w}
	head := table.add("IMAGE", "DIGEST", "SIZE", "UNSHARED", "LAST PULLED", "FRESH", "PINNED", "COMPLETE")
	rest, err := retention.Collect(func(each func(retention.Item) error) error {
		return list(func(item retention.Item) error {
			if item.Image == nil {
				return each(item)
			}
			images++
			return table.add(cells(*item.Image, now)...)
		})
	})
	if err := errors.Join(head, table.flush(), err); err != nil {
		return err
	}
	return writeRest(w, images, rest, now)
}

func cells(k retention.CachedImage, now time.Time) []string {
	name := k.Upstream + "/" + k.Repository
	if len(k.Tags) > 0 {
		name += ":" + strings.Join(k.Tags, ",")
	}
	return []string{
		name, shortDigest(k.Digest), size(k.Size), size(k.Alone), relativeTime(k.LastPulled, now), freshness(k, now), yesNo(k.Pinned), completeness(k),
	}
}

// writeRest writes what follows the images.
func writeRest(w io.Writer, images int, list retention.Inventory, now time.Time) error {
	if err := errors.Join(writeDrafts(w, list.Drafts, now), writeSubjects(w, list.Referrers, now)); err != nil {
		return err
	}
	if len(list.Drafts)+len(list.Referrers) > 0 {
		fmt.Fprintln(w)
	}
	limit := ""
	if list.MaxBytes > 0 {
		limit = " of at most " + size(list.MaxBytes)
	}
	count := fmt.Sprintf("%d images", images)
	if n := len(list.Drafts); n > 0 {
		count += fmt.Sprintf(" and %d unfinished downloads", n)
	}
	_, err := fmt.Fprintf(w, "%s, %s%s; no image refers to %s of that\n", count, size(list.Bytes), limit, size(list.Strays))
	if err == nil {
		_, err = fmt.Fprintf(w, "The records take %s", size(list.Records))
	}
	if err == nil && list.Aside > 0 {
		_, err = fmt.Fprintf(w, ", and damaged files that were set aside %s", size(list.Aside))
	}
	if err == nil {
		_, err = fmt.Fprintln(w)
	}
	if err == nil && list.Full != "" {
		_, err = fmt.Fprintf(w, "There was no room for something %s: %s\n", relativeTime(list.FullAt, now), boundNames[list.Full])
	}
	return err
}

// boundNames say what was met.
var boundNames = map[cache.Bound]string{
	cache.MaxSize:   "max_size is reached",
	cache.MinFree:   "less than min_free is free on the file system",
	cache.DiskSpace: "the file system is full",
	cache.Inodes:    "the file system has no inodes left",
	cache.Quota:     "the quota is reached",
	cache.FileSize:  "a file may not be so large",
}

// writeDrafts writes a section with a line for each unfinished download, if
// there are any.
func writeDrafts(w io.Writer, drafts []retention.CachedDraft, now time.Time) error {
	if len(drafts) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nUNFINISHED DOWNLOAD\tDIGEST\tPRESENT\tLAST USED")
	for _, d := range drafts {
		name, whole := "unknown", "unknown"
		if d.Repository != "" {
			name = d.Upstream + "/" + d.Repository
		}
		if d.Size >= 0 {
			whole = size(d.Size)
		}
		fmt.Fprintf(table, "%s\t%s\t%s of %s\t%s\n", name, shortDigest(d.Digest), size(d.Bytes), whole, relativeTime(d.KeptAt, now))
	}
	return table.Flush()
}

// writeSubjects writes a section with a line for each manifest that is not in
// the cache and whose referrers are known, if there are any.
func writeSubjects(w io.Writer, subjects []retention.KnownReferrers, now time.Time) error {
	if len(subjects) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nREFERRERS OF\tDIGEST\tMANIFESTS\tKNOWN")
	for _, k := range subjects {
		fmt.Fprintf(table, "%s/%s\t%s\t%d\t%s\n", k.Upstream, k.Repository, shortDigest(k.Subject), k.Referrers, relativeTime(k.KnownAt, now))
	}
	return table.Flush()
}

func shortDigest(d metadata.Digest) string {
	return string(d.Algorithm()) + ":" + d.Encoded()[:12]
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func relativeTime(t, now time.Time) string {
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
		return "deleted upstream " + relativeTime(k.GoneSince, now)
	case k.Fresh:
		return "yes"
	}
	return "checked " + relativeTime(k.CheckedAt, now)
}

// completeness says whether everything that a pull of the image may ask for is
// in the cache, and how much is still to be fetched.
func completeness(k retention.CachedImage) string {
	if n := len(k.Unlearnt); n > 0 {
		return fmt.Sprintf("no, %d to fetch", n)
	}
	return yesNo(k.Whole)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
