package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

var opaKinds = []kind{
	{name: "OPA's bundles", client: "OPA", tool: "opa", push: pushBundle, take: serveBundle},
}

const rego = `package e2e

allow if input.user in data.users
`

// pushBundle builds a bundle, and pushes it with the media types that OPA's
// documentation gives to oras.
func pushBundle(e *errand) error {
	users, err := json.Marshal(map[string][]string{"users": append(strings.Fields(strings.Repeat("nobody ", 20_000)), "alice")})
	if err != nil {
		return err
	}
	for file, content := range map[string]string{"bundle/policy.rego": rego, "bundle/data.json": string(users), "config.json": "{}"} {
		if _, err := e.write(file, content); err != nil {
			return err
		}
	}
	if _, err := e.run("opa", "opa", "build", "--bundle", "bundle", "--output", "bundle.tar.gz"); err != nil {
		return err
	}
	bundle, err := os.ReadFile(filepath.Join(e.dir, "bundle.tar.gz"))
	if err != nil {
		return err
	}
	e.notes["bundle"] = string(bundle)
	_, err = e.run("oras", "oras", "push", "--plain-http", "--config", "config.json:application/vnd.oci.image.config.v1+json",
		e.ref("opa/bundle:1"), "bundle.tar.gz:application/vnd.oci.image.layer.v1.tar+gzip")
	return err
}

// serveBundle starts OPA with nothing but the bundle's address, and asks it to
// decide.
func serveBundle(e *errand) error {
	kept, err := e.empty("kept")
	if err != nil {
		return err
	}
	address := "127.0.0.1:" + strconv.Itoa(e.suite.freePort(e.t))
	config, err := e.write("opa.yaml", fmt.Sprintf(`services: {mirror: {type: oci, url: "http://%s"}}
bundles: {e2e: {service: mirror, resource: %q}}
persistence_directory: %q
`, e.host, e.ref("opa/bundle:1"), kept))
	if err != nil {
		return err
	}
	server := startProcess(e.t, e.dir, e.env, e.suite.tool(e.t, "opa").program("opa"),
		"run", "--server", "--disable-telemetry", "--addr", address, "--config-file", config)
	defer server.end(e.t, syscall.SIGTERM)
	server.waitReady(e.t, func() error { return answers("http://" + address + "/health?bundles") })
	for user, want := range map[string]bool{"alice": true, "mallory": false} {
		allowed, err := decide("http://"+address+"/v1/data/e2e", user)
		if err != nil {
			return err
		}
		if allowed != want {
			return fmt.Errorf("%s is allowed: %t, want %t", user, allowed, want)
		}
	}
	digest := sha256.Sum256([]byte(e.notes["bundle"]))
	return same(filepath.Join(kept, "oci", "blobs", "sha256", hex.EncodeToString(digest[:])), e.notes["bundle"])
}

func decide(address, user string) (bool, error) {
	resp, err := http.Post(address, "application/json", strings.NewReader(`{"input": {"user": "`+user+`"}}`))
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	var answer struct{ Result *struct{ Allow bool } }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return false, fmt.Errorf("what OPA decides of %s: %w", user, err)
	}
	if answer.Result == nil {
		return false, fmt.Errorf("OPA has no policy to decide of %s by", user)
	}
	return answer.Result.Allow, nil
}
