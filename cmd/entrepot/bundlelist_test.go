package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

func TestAListOfABundleIsReadAsThatOfWarm(t *testing.T) {
	fake := upstreamtest.New(t)
	fake.AddImage("team/app", "1", upstreamtest.Bytes(1, 3_000))
	p := newPlace(t, fake, "")
	flags := p.pinned("team/app:1")
	list, file := filepath.Join(t.TempDir(), "images.txt"), filepath.Join(t.TempDir(), "images.tar")
	write := func(content string) {
		if err := os.WriteFile(list, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("\ufeff# ours\nteam/app:1\t# the first\n\n")
	p.do(flags, "bundle", "create", file, "-f", list)
	if said := verified(t, file); !strings.Contains(said, "hub.test/team/app:1") {
		t.Error(said)
	}
	// All that is wrong is said at once, with its place.
	write("team/app:1\nno image\n\nteam/app@sha256:12\n")
	code, _, stderr := p.run(flags, "bundle", "create", file, "-f", list)
	if code != exitUsage || !strings.Contains(stderr, list+`:2: "no image"`) || !strings.Contains(stderr, list+`:4: "team/app@sha256:12"`) {
		t.Errorf("exit %d, %s", code, stderr)
	}
}
