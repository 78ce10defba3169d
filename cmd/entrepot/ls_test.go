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
		if err := writeTable(&table, retention.Inventory{Images: []retention.CachedImage{k}}, time.Now()); err != nil {
			t.Fatal(err)
		}
		line := strings.Split(table.String(), "\n")[1]
		if !strings.HasSuffix(line, "  "+want) {
			t.Errorf("%q does not end in %q", line, want)
		}
	}
}
