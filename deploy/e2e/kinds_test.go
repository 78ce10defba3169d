package e2e

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if answered, err := answerReading(); answered {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if code == 0 {
		if err := writePages(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

var kinds = slices.Concat(orasKinds, craneKinds, regctlKinds, cosignKinds, notationKinds, fluxKinds, devcontainerKinds, kyvernoKinds, composeKinds,
	helmKinds, gatorKinds, opaKinds, syftKinds, homebrewKinds, volumeKinds,
	seccompKinds, tektonKinds, falcoKinds, wasmKinds, buildkitKinds, attestationKinds)

func TestKindsOfArtifactsComeThroughTheMirror(t *testing.T) {
	s := newSuite(t)
	results := &table{}
	t.Run("kinds", func(t *testing.T) {
		for _, k := range kinds {
			for _, r := range both {
				t.Run(k.name+"/"+r.name, func(t *testing.T) {
					t.Parallel()
					results.add(s.bring(t, k, r)...)
				})
			}
		}
	})
	put(t, "kinds", `## Every kind of artifact

Each is made and pushed straight to the upstream by its own client, then taken through the mirror and compared, byte for byte
or by the client's own verification. The upstream speaks distribution-spec 1.0 or 1.1. What hangs on an image is also asked
for while the upstream answers 503 to every reading about it, and must not be taken for absent.

Where the client is a library, the program above it is not run. It is the program's own where that can be had by itself (Helm 3,
gator, Syft, Flux, Notation); else go-containerregistry or oras-go, asked in the order in which the program asks.

`+results.sorted("kind", "client", "version", "upstream", "first time", "second time", "upstream stopped", "after `kill -9`, upstream stopped"))
}

// moment is longer than records wait for each other before they are written.
const moment = time.Second

// bring takes one kind of artifact through a mirror's life: never seen, seen,
// without its upstream, and crashed without its upstream.
func (s *suite) bring(t *testing.T, k kind, r registryKind) (columns []string) {
	up := r.start(t, s)
	dir := s.folder(t)
	push := &errand{suite: s, t: t, dir: dir, registry: up.host, host: up.host, env: environment(dir), pushed: map[string]string{}, notes: map[string]string{}}
	if err := k.push(push); err != nil {
		t.Fatalf("push: %v", err)
	}
	if k.hangs {
		s.checkUnknown(t, k, up, push)
	}
	up.take()

	m := s.startMirror(t, up, time.Hour)
	take := push.at(m.address, m.address+"/registry.example")
	take.mirror = m
	stopped := false
	pull := func(when string) requests {
		t.Helper()
		if err := k.take(take); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if !stopped {
			m.waitAllLearnt(t)
		}
		return up.take()
	}
	first := pull("of something never seen")
	fresh := pull("while fresh")
	t.Logf("the upstream is asked %s, then %s", first.summary(), fresh.summary())
	checkOnce(t, slices.Concat(first, fresh))
	stopped = true
	up.stop(t)
	pull("with the upstream stopped")
	time.Sleep(moment)
	m.crash(t)
	m.start(t)
	pull("after kill -9, with the upstream stopped")
	return []string{k.name, k.client, s.version(t, k.tool), r.name, first.summary(), fresh.summary(), "taken", "taken"}
}

// checkOnce checks that no content crossed the line twice, and that nobody went
// round the mirror.
func checkOnce(t *testing.T, asked requests) {
	t.Helper()
	checkNobodyElse(t, asked)
	seen := map[string]bool{}
	for _, q := range asked {
		if q.method != http.MethodGet || q.status != http.StatusOK || !strings.Contains(q.path, "sha256:") {
			continue
		}
		if seen[q.path] {
			t.Errorf("asked for twice: %s\nin\n%s", q, asked)
		}
		seen[q.path] = true
	}
}

// checkUnknown checks that what hangs on an image is not taken for absent where
// the upstream can't tell, and that it is found once it can.
func (s *suite) checkUnknown(t *testing.T, k kind, up *upstream, push *errand) {
	t.Helper()
	up.refuse(func(r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/referrers/") || strings.Contains(r.URL.Path, "/manifests/sha256-")
	})
	m := s.startMirror(t, up, time.Hour)
	take := push.at(m.address, m.address+"/registry.example")
	err := k.take(take)
	t.Logf("while the upstream refuses: %v", err)
	if err == nil && !k.named {
		t.Error("it succeeds where what refers to the image can't be known")
	}
	if err != nil && k.named {
		t.Errorf("it fails where what came names what refers to it: %v", err)
	}
	// A client may fail for another reason, so the mirror is asked itself.
	for repository, digest := range push.pushed {
		repository, _, _ = strings.Cut(repository, ":")
		for _, path := range []string{"referrers/" + digest, "manifests/" + strings.Replace(digest, ":", "-", 1)} {
			resp, err := http.Get("http://" + m.address + "/v2/registry.example/" + repository + "/" + path)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode < 500 {
				t.Errorf("%s of %s while nobody knows: %s", path, repository, resp.Status)
			}
		}
	}
	up.refuse(nil)
	m.stop(t)
}
