package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// surroundings are a network with entrepot's addresses, the registries behind it, and a
// mirror that people had before, and entrepot's configuration of it.
type surroundings struct {
	*network
	configuration string
	corp, ca      string // files with who signed: the registries', entrepot's own
	from          []reached
	questions     atomic.Int64 // that a library was asked
}

// reached is by which addresses entrepot is reached.
type reached struct {
	name      string
	addresses []string
	ca        bool // who signed is told
}

// hosts are the addresses without their schemes.
func (r reached) hosts() []string {
	var all []string
	for _, address := range r.addresses {
		_, host, _ := strings.Cut(address, "://")
		all = append(all, host)
	}
	return all
}

func newSurroundings(t *testing.T) *surroundings {
	t.Helper()
	public, corp, own := newAuthority(t, "public"), newAuthority(t, "corp"), newAuthority(t, "own")
	w := &surroundings{network: newNetwork(t, public)}
	w.corp, w.ca = filepath.Join(w.dir, "corp.pem"), filepath.Join(w.dir, "own.pem")
	writeFile(t, w.corp, string(corp.pem))
	writeFile(t, w.ca, string(own.pem))
	w.open("mirror.lan:5000")
	w.secure(t, own, "mirror.lan:5001")
	w.open("[fd00::5]:5000")
	w.open("one.lan:80")
	w.secure(t, public, "two.lan:443")
	w.from = []reached{
		{"by a name", []string{"http://mirror.lan:5000"}, false},
		{"by HTTPS with a private CA", []string{"https://mirror.lan:5001"}, true},
		{"by IPv6", []string{"http://[fd00::5]:5000"}, false},
		{"by two addresses", []string{"http://one.lan", "https://two.lan"}, false},
		{"on loopback", []string{"http://" + w.loopback(t, authority{})}, false},
		{"on loopback by HTTPS", []string{"https://" + w.loopback(t, own)}, true},
	}
	// Whoever looks into what passes signs for docker.io too.
	w.secure(t, corp, "registry-1.docker.io:443")
	w.secure(t, corp, "index.docker.io:443")
	w.secure(t, public, "ghcr.io:443")
	w.secure(t, corp, "corp.lan:5443")
	w.secure(t, corp, "deep.lan:443")
	w.open("pull.lan:8080")
	w.secure(t, public, "theirs.lan:443")
	w.secure(t, corp, "others.lan:443")
	w.configuration = filepath.Join(w.dir, "entrepot.yaml")
	writeFile(t, w.configuration, fmt.Sprintf(`upstreams:
  - {name: docker.io, default: true, tls: {ca_file: %[1]q}}
  - {name: ghcr.io, aliases: [alias.lan]}
  - {name: "corp.lan:5443", tls: {ca_file: %[1]q}}
  - {name: far.lan, endpoints: ["https://deep.lan/v2/registry"], tls: {ca_file: %[1]q}}
  - {name: plain.lan, endpoints: ["http://pull.lan:8080"]}
`, w.corp))
	return w
}

// hosts runs "entrepot hosts" for the ways by which entrepot is reached.
func (w *surroundings) hosts(t *testing.T, by reached, runtime string, more ...string) (printed string) {
	t.Helper()
	args := []string{"hosts", runtime, "--config", w.configuration}
	for _, address := range by.addresses {
		args = append(args, "--address", address)
	}
	if by.ca {
		args = append(args, "--ca", w.ca)
	}
	return command(t, w.environment(), setting(t, "ENTREPOT_E2E_PROGRAM"), append(args, more...)...)
}

// means makes sure that a library asks for images at these places, in this order.
// A place that begins with MIRROR stands for one at each of entrepot's addresses.
func (w *surroundings) means(t *testing.T, by reached, library, path string, want map[string][]string) {
	t.Helper()
	images := slices.Sorted(maps.Keys(want))
	for _, image := range images {
		w.questions.Add(1)
		text, err := json.Marshal(reading{Library: library, Path: path, Images: []string{image}})
		if err != nil {
			t.Fatal(err)
		}
		said := command(t, append(w.environment(), readingVariable+"="+string(text)), os.Args[0])
		var all []string
		for _, place := range want[image] {
			rest, mirrored := strings.CutPrefix(place, "MIRROR")
			if !mirrored {
				all = append(all, place)
				continue
			}
			for _, address := range by.addresses {
				all = append(all, address+rest)
			}
		}
		if got := w.take(); !slices.Equal(got, all) {
			t.Errorf("%s is asked of\n  %s\nwant\n  %s\nit says: %s", image, strings.Join(got, "\n  "), strings.Join(all, "\n  "), said)
		}
	}
}

// taken makes sure that --remove leaves what was there.
func (w *surroundings) taken(t *testing.T, by reached, runtime, dir string, before map[string]string) {
	t.Helper()
	w.hosts(t, by, runtime, "--remove", dir)
	if got := filesIn(t, dir); !maps.Equal(got, before) {
		t.Errorf("--remove leaves %q\nwant %q", got, before)
	}
}

func isIPv6(by reached) bool {
	return slices.ContainsFunc(by.addresses, func(address string) bool {
		host, _, err := net.SplitHostPort(strings.TrimPrefix(address, "http://"))
		return err == nil && strings.Contains(host, ":")
	})
}

func samePEM(a, b string) bool { return strings.TrimSpace(a) == strings.TrimSpace(b) }
