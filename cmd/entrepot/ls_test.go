package main

import (
	"strings"
	"testing"
	"time"

	"github.com/entrepot/entrepot/proxy/retention"
)

func TestLsSaysHowMuchIsStillToBeLearnt(t *testing.T) {
	const digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	for want, k := range map[string]retention.CachedImage{
		"yes":            {Whole: true},
		"no":             {},
		"no, 2 to fetch": {Unlearnt: []string{"manifest " + digest, "referrers of " + digest}},
	} {
		k.Upstream, k.Repository, k.Digest = "docker.io", "library/alpine", digest
		var table strings.Builder
		if err := writeList(&table, retention.Inventory{Images: []retention.CachedImage{k}}.Each, time.Now()); err != nil {
			t.Fatal(err)
		}
		line := strings.Split(table.String(), "\n")[1]
		if !strings.HasSuffix(line, "  "+want) {
			t.Errorf("%q does not end in %q", line, want)
		}
	}
}

func TestLsShowsUnfinishedDownloadsAndReferrersOnlyIfThereAreAny(t *testing.T) {
	const digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	image := retention.CachedImage{Upstream: "docker.io", Repository: "library/alpine", Digest: digest, Size: 3 << 20, Alone: 3 << 20, Whole: true, LastPulled: now}
	const images = "IMAGE                     DIGEST               SIZE     UNSHARED  LAST PULLED  FRESH      PINNED  COMPLETE\n" +
		"docker.io/library/alpine  sha256:44136fa355b3  3.0 MiB  3.0 MiB   now          by digest  no      yes\n"
	for name, c := range map[string]struct {
		drafts    []retention.CachedDraft
		referrers []retention.KnownReferrers
		want      string
	}{
		"none": {nil, nil, images + "1 images, 7.0 MiB of at most 1.0 GiB; no image refers to 0 B of that\nThe records take 1.0 MiB\n"},
		"two": {
			[]retention.CachedDraft{
				{Digest: digest, Size: -1, Bytes: 512, KeptAt: now.Add(-48 * time.Hour)},
				{Digest: digest, Upstream: "ghcr.io", Repository: "org/model", Size: 68 << 20, Bytes: 4 << 20, KeptAt: now.Add(-3 * time.Minute)},
			},
			nil,
			images + "\n" +
				"UNFINISHED DOWNLOAD  DIGEST               PRESENT            LAST USED\n" +
				"unknown              sha256:44136fa355b3  512 B of unknown   2 days ago\n" +
				"ghcr.io/org/model    sha256:44136fa355b3  4.0 MiB of 68 MiB  3 minutes ago\n" +
				"\n1 images and 2 unfinished downloads, 7.0 MiB of at most 1.0 GiB; no image refers to 0 B of that\nThe records take 1.0 MiB\n",
		},
		"one, and the referrers of two": {
			[]retention.CachedDraft{{Digest: digest, Size: -1, Bytes: 512, KeptAt: now.Add(-48 * time.Hour)}},
			[]retention.KnownReferrers{
				{Upstream: "ghcr.io", Repository: "org/app", Subject: digest, KnownAt: now.Add(-3 * time.Minute)},
				{Upstream: "quay.io", Repository: "org/other", Subject: digest, Referrers: 12, KnownAt: now.Add(-48 * time.Hour)},
			},
			images + "\n" +
				"UNFINISHED DOWNLOAD  DIGEST               PRESENT           LAST USED\n" +
				"unknown              sha256:44136fa355b3  512 B of unknown  2 days ago\n" +
				"\n" +
				"REFERRERS OF       DIGEST               MANIFESTS  KNOWN\n" +
				"ghcr.io/org/app    sha256:44136fa355b3  0          3 minutes ago\n" +
				"quay.io/org/other  sha256:44136fa355b3  12         2 days ago\n" +
				"\n1 images and 1 unfinished downloads, 7.0 MiB of at most 1.0 GiB; no image refers to 0 B of that\nThe records take 1.0 MiB\n",
		},
	} {
		var table strings.Builder
		list := retention.Inventory{Images: []retention.CachedImage{image}, Drafts: c.drafts, Referrers: c.referrers, Totals: retention.Totals{Bytes: 7 << 20, MaxBytes: 1 << 30, Records: 1 << 20}}
		if err := writeList(&table, list.Each, now); err != nil {
			t.Fatal(err)
		}
		if table.String() != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, table.String(), c.want)
		}
	}
}
