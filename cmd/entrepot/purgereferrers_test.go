package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

func TestWhatIsKnownOfAManifestThatNobodyPulledIsListedAndPurged(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(map[bool]string{true: "through a running server", false: "on a stopped folder"}[running], func(t *testing.T) {
			fake := upstreamtest.New(t, upstreamtest.WithReferrers())
			image, _ := fake.AddImage("team/app", "1", []byte("layer"))
			fake.AddReferrer("team/app", image, "application/vnd.example", []byte("referrer"))
			p := newPlace(t, fake, "")
			admin := p.serve()
			if status, body := p.get("/v2/team/app/referrers/" + image.Digest.String()); status != http.StatusOK {
				t.Fatalf("%d %s", status, body)
			}
			flags := []string{"--admin", admin}
			if !running {
				p.stop()
				flags = nil
			}
			target := "hub.test/team/app@" + image.Digest.String()
			row := "hub.test/team/app  " + image.Digest.String()[:19] + "  1 "
			if _, table, _ := p.run(flags, "ls"); !strings.Contains(table, row) {
				t.Errorf("ls:\n%s", table)
			}
			want := "referrers of " + target + "\npurged 0 tags, 0 manifests and 0 files, 0 B\n"
			if code, stdout, stderr := p.run(flags, "purge", target); code != 0 || stdout != want {
				t.Errorf("exit %d, %s\ngot\n%s\nwant\n%s", code, stderr, stdout, want)
			}
			if _, table, _ := p.run(flags, "ls"); strings.Contains(table, row) {
				t.Errorf("ls after the purge:\n%s", table)
			}
			p.stop()
		})
	}
}
