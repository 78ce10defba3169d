package bundle_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/entrepot/entrepot/proxy/bundle"
)

// foreignLayout is a layout as other tools write it: the index comes last, folders
// have members, and the image is called as it is there.
func foreignLayout(t *testing.T, name string) []byte {
	t.Helper()
	s := smallSet()
	s.contents.Images = s.contents.Images[1:]
	s.contents.Images[0].Referrers, s.contents.Referrers = false, nil
	all := membersOf(t, s.write(t))
	all = slices.DeleteFunc(all, func(m member) bool { return m.Name == "entrepot.json" || m.Name == "manifest.json" })
	all = append(all, member{tar.Header{Typeflag: tar.TypeDir, Name: "blobs/", Mode: 0o755}, nil})
	slices.Reverse(all)
	return tarOf(t, replaced(all, `"hub.test/app:1"`, `"`+name+`"`))
}

func TestALayoutOfAnotherToolBecomesABundle(t *testing.T) {
	for _, c := range []struct{ name, as, want string }{
		{"hub.test/app:1", "", "hub.test/app:1"},
		{"hub.test/app:1", "docker.io", "hub.test/app:1"},
		{"team/app:1", "docker.io", "docker.io/team/app:1"},
		{"app:1", "docker.io", "docker.io/library/app:1"},
		{"1", "docker.io/app", "docker.io/library/app:1"},
		{"1", "ghcr.io/org/app", "ghcr.io/org/app:1"},
		{"latest", "docker.io/team/app:2", "docker.io/team/app:2"},
		{"app:1", "ghcr.io/org/other:2", "ghcr.io/org/other:2"},
		{"hub.test/app:1", "ghcr.io/org/other:2", "hub.test/app:1"},
		{"localhost:5000/app:1", "", "localhost:5000/app:1"},
	} {
		f, err := bundle.OpenForeign(bytes.NewReader(foreignLayout(t, c.name)), c.as, time.Unix(1, 0))
		if err != nil {
			t.Errorf("%s as %q: %v", c.name, c.as, err)
			continue
		}
		var out bytes.Buffer
		if err := f.Write(&out); err != nil {
			t.Errorf("%s as %q: %v", c.name, c.as, err)
		}
		report, err := bundle.Verify(&out, nil)
		if err != nil || len(report.Images) != 1 || report.Images[0].Name != c.want {
			t.Errorf("%s as %q: %+v, %v", c.name, c.as, report, err)
			continue
		}
		// The platform that was left out is missing here: nothing says why.
		if image := report.Images[0]; len(image.Missing) != 2 || image.Manifests != 3 || image.Blobs != 4 {
			t.Errorf("%s as %q: %+v", c.name, c.as, image)
		}
	}
	for name, c := range map[string]struct {
		as string
		is error
	}{"app:1": {"", bundle.ErrUnnamed}, "1": {"docker.io", bundle.ErrUnnamed}, "a b/c:1": {"docker.io", nil}} {
		_, err := bundle.OpenForeign(bytes.NewReader(foreignLayout(t, name)), c.as, time.Unix(1, 0))
		if err == nil || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s as %q: %v", name, c.as, err)
		}
	}
	damaged := foreignLayout(t, "hub.test/app:1")
	damaged[strings.Index(string(damaged), "layer of amd64")] ^= 1
	if _, err := bundle.OpenForeign(bytes.NewReader(damaged), "", time.Unix(1, 0)); !errors.Is(err, bundle.ErrDamaged) {
		t.Errorf("%v", err)
	}
}
