package e2e

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/file"
)

var falcoKinds = []kind{
	{name: "Falco's rules", client: "oras-go, as falcoctl calls it", tool: orasGo, push: pushRules, take: installRules},
}

const (
	rulesType       = "application/vnd.cncf.falco.rulesfile.layer.v1+tar.gz"
	rulesConfigType = "application/vnd.cncf.falco.rulesfile.config.v1+json"
	rulesConfig     = `{"name": "e2e-rules", "version": "1.0.0", "requirements": [{"name": "engine_version_semver", "version": "0.31.0"}]}`
)

// pushRules packs a file of rules with its config, both as files of a store.
func pushRules(e *errand) error {
	rules := layer(e.t, func(w *tar.Writer) error {
		text := "- rule: nothing\n  condition: evt.type = open\n" + strings.Repeat("# a line of the rules\n", 5000)
		if err := w.WriteHeader(&tar.Header{Name: "e2e_rules.yaml", Mode: 0o644, Size: int64(len(text)), ModTime: built}); err != nil {
			return err
		}
		_, err := io.WriteString(w, text)
		return err
	})
	packed, err := rules.Compressed()
	if err != nil {
		return err
	}
	defer packed.Close()
	archive, err := io.ReadAll(packed)
	if err != nil {
		return err
	}
	e.notes["rules"] = string(archive)

	store, err := file.New(e.dir)
	if err != nil {
		return err
	}
	defer store.Close()
	add := func(name, mediaType, content string) (ocispec.Descriptor, error) {
		path, err := e.write(filepath.Join("rules", name), content)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		return store.Add(e.context(), name, mediaType, path)
	}
	layer, err := add("e2e-rules.tar.gz", rulesType, string(archive))
	if err != nil {
		return err
	}
	config, err := add("config", rulesConfigType, rulesConfig)
	if err != nil {
		return err
	}
	manifest, err := oras.PackManifest(e.context(), store, oras.PackManifestVersion1_0, "", oras.PackManifestOptions{
		ConfigDescriptor: &config, Layers: []ocispec.Descriptor{layer},
	})
	if err != nil {
		return err
	}
	if err := store.Tag(e.context(), manifest, "1"); err != nil {
		return err
	}
	repo, err := e.orasRepository("falco/rules")
	if err != nil {
		return err
	}
	_, err = oras.Copy(e.context(), store, "1", repo, "1", oras.DefaultCopyOptions)
	return err
}

// installRules is "falcoctl artifact install": what the artifact needs is read
// from its config, then the tag is copied.
func installRules(e *errand) error {
	if err := readRulesConfig(e); err != nil {
		return err
	}
	repo, err := e.orasRepository("falco/rules")
	if err != nil {
		return err
	}
	into, err := e.empty("taken")
	if err != nil {
		return err
	}
	store, err := file.New(into)
	if err != nil {
		return err
	}
	defer store.Close()
	options := oras.CopyOptions{CopyGraphOptions: oras.CopyGraphOptions{Concurrency: 1}}
	if _, err := oras.Copy(e.context(), repo, "1", store, "1", options); err != nil {
		return err
	}
	return errors.Join(
		same(filepath.Join(into, "e2e-rules.tar.gz"), e.notes["rules"]),
		same(filepath.Join(into, "config"), rulesConfig),
	)
}

// readRulesConfig finds the config by its digest alone: whether oras-go then
// asks for a blob or for a manifest is decided by the type that HEAD tells (W4).
func readRulesConfig(e *errand) error {
	repo, err := e.orasRepository("falco/rules")
	if err != nil {
		return err
	}
	desc, body, err := repo.FetchReference(e.context(), "1")
	if err != nil {
		return err
	}
	defer body.Close()
	raw, err := content.ReadAll(body, desc)
	if err != nil {
		return err
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return err
	}
	if len(manifest.Layers) != 1 || manifest.Layers[0].MediaType != rulesType {
		return fmt.Errorf("the layers are %+v, want one of %s", manifest.Layers, rulesType)
	}
	config, err := repo.Blobs().Resolve(e.context(), manifest.Config.Digest.String())
	if err != nil {
		return err
	}
	if config.MediaType != "application/octet-stream" || config.Size != manifest.Config.Size {
		return fmt.Errorf("HEAD of the config tells %s of %d bytes, want application/octet-stream of %d", config.MediaType, config.Size, manifest.Config.Size)
	}
	got, err := content.FetchAll(e.context(), repo, config)
	if err == nil && string(got) != rulesConfig {
		err = fmt.Errorf("the config is %q, want %q", got, rulesConfig)
	}
	return err
}
