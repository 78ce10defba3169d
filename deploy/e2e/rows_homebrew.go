package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// homebrewRow writes nothing: what it prints is evaluated in a shell. Its client
// is curl, as Homebrew calls it.
var homebrewRow = rowRuntime{
	name: "Homebrew", tool: "curl", tools: []string{"curl"}, row: "Homebrew ", folders: []string{"/etc/homebrew"},
	stories: []story{{"in a shell", true, inAShell}},
}

// brew asks for what lies at ghcr.io as Homebrew does.
type brew struct {
	*machine
	domain string
	older  bool // from before Homebrew/brew#23062
}

var withAPath = regexp.MustCompile(`^https?://[^/]+/v2(/|$)`)

// places are where something of ghcr.io is asked for, in order.
func (b *brew) places(rest string) []string {
	const origin = "https://ghcr.io/"
	switch {
	case b.domain == "":
		return []string{origin + "v2/" + rest}
	case b.older:
		return []string{b.domain + "/v2/" + rest}
	case withAPath.MatchString(b.domain):
		return []string{b.domain + "/" + rest, origin + "v2/" + rest}
	}
	return []string{b.domain + "/v2/" + rest, origin + "v2/" + rest}
}

func (b *brew) fetch(ctx context.Context, rest string, more ...string) (string, error) {
	var failed []error
	for _, place := range b.places(rest) {
		stdout, stderr, err := try(ctx, b.dir, b.env, b.tool(b.t, "curl").program("curl"), slices.Concat(asking, more, []string{place})...)
		if err == nil {
			return stdout, nil
		}
		failed = append(failed, err, errors.New(place+": "+strings.TrimSpace(stderr)))
	}
	return "", errors.Join(failed...)
}

// pull takes a manifest and the layer that it names.
func (b *brew) pull(ctx context.Context, ref string) error {
	repository, tag, _ := strings.Cut(strings.TrimPrefix(ref, "ghcr.io/"), ":")
	content, err := b.fetch(ctx, repository+"/manifests/"+tag, "--header", "Accept: application/vnd.oci.image.manifest.v1+json")
	if err != nil {
		return err
	}
	var manifest v1.Manifest
	if err := json.Unmarshal([]byte(content), &manifest); err != nil {
		return err
	}
	_, err = b.fetch(ctx, repository+"/blobs/"+manifest.Layers[0].Digest.String())
	return err
}

func (b *brew) restart(string) {}
func (b *brew) stop()          {}

// shell is a shell in which the row has been typed.
func (s *telling) shell(flags string, older bool) *brew {
	s.t.Helper()
	typed := strings.Replace(s.runtime.command(s.t, 1, "eval "), "hosts homebrew", "hosts homebrew "+flags, 1)
	domain, _ := s.types(typed + ` && printf %s "$HOMEBREW_ARTIFACT_DOMAIN"`)
	if domain == "" {
		s.t.Fatal("what is typed sets nothing")
	}
	return &brew{s.machine, domain, older}
}

// brewEnv is what Homebrew takes from its file of variables.
func (s *telling) brewEnv() map[string]string {
	s.t.Helper()
	content, err := os.ReadFile("/etc/homebrew/brew.env")
	if err != nil {
		s.t.Fatal(err)
	}
	variables := map[string]string{}
	for line := range strings.Lines(string(content)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.HasPrefix(key, "HOMEBREW_") {
			variables[key] = value
		}
	}
	return variables
}

func inAShell(s *telling) {
	const ghcr = "ghcr.io"
	s.runEntrepot(mirrored{})
	s.from(s.pulls(s.shell("", false), ghcr), "here", "as typed")
	s.from(s.pulls(s.shell("", true), ghcr), "here", "as typed, an older Homebrew")
	s.found("as typed", comes)

	s.brewFiles()
	const corp = "corp.lan:5443"
	if said := s.brewCheck()[corp]; said != neverAsked {
		s.t.Errorf("--check says of %s: %s", corp, said)
	}
	s.found("with a port", "%s", neverAsked)

	s.runEntrepot(mirrored{ghcr: "packages.lan"})
	s.from(s.pulls(s.shell("", false), ghcr), "here", "an alias")
	s.found("upstream by alias", comes)
	s.runEntrepot(mirrored{ghcrHosts: "hub.lan"})
	s.from(s.pulls(&brew{machine: s.machine, domain: "http://hub.lan:5000"}, ghcr), "here", "a virtual host")
	s.found("by virtual host", comes)
	s.runEntrepot(mirrored{listen: "[::1]:5000"})
	s.from(s.pulls(s.shell("", false), ghcr), "here", "IPv6")
	s.found("IPv6", comes)
	s.runEntrepot(mirrored{signedBy: s.private})
	const wants = "has to be among those"
	if _, said := s.types("entrepot hosts homebrew --ca /etc/office.crt"); !strings.Contains(said, wants) {
		s.t.Errorf("of a private CA the program says %q", said)
	}
	s.from(s.pulls(s.shell("--ca /etc/office.crt", false), ghcr), ghcr, "whom the system does not believe")
	s.put("/etc/ssl/certs/ca-certificates.crt", string(s.trusted.pem)+string(s.private.pem))
	s.from(s.pulls(s.shell("--ca /etc/office.crt", false), ghcr), "here", "whom the system believes")
	s.found("HTTPS with a private CA", "%s once the system believes it", comes)
	s.runEntrepot(mirrored{})
	const two = "--address http://127.0.0.1:5999 --address http://mirror.lan:5000"
	if _, said := s.types("entrepot hosts homebrew " + two); !strings.Contains(said, "http://mirror.lan:5000 is left out") {
		s.t.Errorf("of two addresses the program says %q", said)
	}
	s.from(s.pulls(s.shell(two, false), ghcr), ghcr, "two addresses, the first down")
	s.found("two addresses", "knows one")

	newer, before := s.shell("", false), s.shell("", true)
	s.brewHangs(newer)
	s.mirror.stop(s.t)
	down := s.pulls(newer, ghcr)
	s.from(down, ghcr, "with entrepot down")
	s.from(s.pulls(before, ghcr), nobody, "with entrepot down, an older one")
	s.found("entrepot down", "straight, %s; from before August 2026: fails", seconds(down.took))
	s.from(s.pulls(&brew{machine: s.machine}, ghcr), ghcr, "in another shell")
	s.mirror.start(s.t)
	s.brewIsGone()
}

// brewFiles writes the file of variables instead, where there is none and beside
// what a user has, and takes ours out again.
func (s *telling) brewFiles() {
	s.t.Helper()
	for column, theirs := range map[string]string{"no file there": "", "existing configuration kept": "# mine\nHOMEBREW_NO_ANALYTICS=1\n"} {
		s.clear(s.runtime.folders...)
		if theirs != "" {
			s.put("/etc/homebrew/brew.env", theirs)
		}
		before := s.snapshot(s.runtime.folders...)
		s.types("entrepot hosts homebrew --write")
		variables := s.brewEnv()
		s.from(s.pulls(&brew{machine: s.machine, domain: variables["HOMEBREW_ARTIFACT_DOMAIN"]}, "ghcr.io"), "here", column)
		if (variables["HOMEBREW_NO_ANALYTICS"] == "1") != (theirs != "") {
			s.t.Errorf("%s: Homebrew reads %v", column, variables)
		}
		s.types("entrepot hosts homebrew --remove")
		s.asBefore(before, s.snapshot(s.runtime.folders...))
		s.found(column, comes)
	}
	s.found("removed", "as before; another shell goes straight")
}

func (s *telling) brewCheck() map[string]string {
	s.t.Helper()
	return s.checked("entrepot hosts homebrew --check")
}

// longerThanCurl is for what has no limit of its own.
const longerThanCurl = 20 * time.Second

func (s *telling) brewHangs(b *brew) {
	s.t.Helper()
	if said := s.brewCheck()["with entrepot down a pull costs"]; !strings.Contains(said, "for as long as curl waits where its machine is gone or it hangs") {
		s.t.Errorf("of what it costs the program says %q", said)
	}
	ref := s.fresh("ghcr.io")
	s.signal(syscall.SIGSTOP)
	woken := time.AfterFunc(longerThanCurl, func() { s.signal(syscall.SIGCONT) })
	defer woken.Stop()
	a := s.pullsThis(b, ref)
	if a.took < longerThanCurl || a.err != nil || a.here == 0 {
		s.t.Errorf("while it hangs: %s", a)
	}
	s.found("hung", "for as long as it hangs (%v here)", longerThanCurl)
}

func (s *telling) brewIsGone() {
	s.t.Helper()
	b := s.shell("--address http://"+gone+":5000", false)
	ref := s.fresh("ghcr.io")
	a := s.watch(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, longerThanCurl)
		defer cancel()
		return b.pull(ctx, ref)
	})
	if a.took < longerThanCurl {
		s.t.Errorf("where its machine is gone: %s", a)
	}
	s.found("its machine gone", "for as long as curl waits (over %v)", longerThanCurl)
}
