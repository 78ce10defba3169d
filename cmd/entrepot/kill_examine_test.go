package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// keeps says whether a manifest is kept now.
func (l *life) keeps(key string) bool {
	list, err := l.inventory()
	if err != nil {
		l.k.Errorf("round %d: %v", l.k.round, err)
	}
	return slices.ContainsFunc(list.Images, func(image retention.CachedImage) bool { return image.Digest.String() == key })
}

// examine starts a server whose upstream refuses, over what the killed one
// left, and looks at everything. Then it kills that too.
func (k *killing) examine() {
	k.Helper()
	died := k.died
	drafts := k.names("drafts")
	k.fake.Always("", upstreamtest.Status(http.StatusServiceUnavailable, "UNAVAILABLE"))
	defer k.fake.Mend()
	l := k.start()
	if !l.announced() {
		k.Fatalf("round %d: the server does not start again: %s", k.round, l.stderr.String())
	}
	for _, name := range k.names("drafts") {
		if slices.Contains(drafts, name) {
			k.Errorf("round %d: the draft %s is left", k.round, name)
		}
	}
	list, err := l.inventory()
	if err != nil {
		k.Fatalf("round %d: %v", k.round, err)
	}
	kept := map[string]retention.CachedImage{}
	for _, image := range list.Images {
		kept[image.Digest.String()] = image
	}
	for key, image := range kept {
		k.examineImage(l, key, image)
	}
	for tag, got := range k.pullTags(l) {
		k.examineTag(tag, <-got, died)
	}
	k.examineFolder(list)
	clear(k.told) // what counts from here on is what was served now
	k.examined++
	l.kill()
	for key := range k.whole {
		if !kept[key].Whole {
			delete(k.whole, key) // evicted, or pulled too shortly before
		}
	}
}

// examineImage pulls what is kept, without an upstream.
func (k *killing) examineImage(l *life, key string, image retention.CachedImage) {
	status, body, _, err := l.get(l.clients + "/v2/" + image.Repository + "/manifests/" + key)
	if err != nil || status != http.StatusOK || digest.FromBytes(body).String() != key {
		if err == nil && status != http.StatusOK && !l.keeps(key) {
			return // evicted since it was listed
		}
		k.Errorf("round %d: the manifest %s is kept, and not served: %d, %v", k.round, key, status, err)
		return
	}
	before := k.whole[key]
	if !image.Whole && (before.IsZero() || !k.pulled[key].Before(before)) {
		return // it never was, or it may have been evicted and be on its way back
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		k.Error(err)
	}
	for _, part := range append(m.Layers, m.Config) {
		if err := l.prove("/v2/"+image.Repository+"/blobs/"+part.Digest.String(), part.Digest); err != nil {
			if !l.keeps(key) {
				return
			}
			k.lost += part.Size
			k.Errorf("round %d: %s of %s was whole, and is served without a part: %v", k.round, key, image.Repository, err)
		}
	}
}

// tagAnswer is what a server answers for a tag.
type tagAnswer struct {
	status int
	body   []byte
	err    error
}

// pullTags pulls all pinned tags at once: each waits for the upstream that
// refuses.
func (k *killing) pullTags(l *life) map[string]chan tagAnswer {
	all := map[string]chan tagAnswer{}
	for tag := range k.steady {
		got := make(chan tagAnswer, 1)
		all[tag] = got
		go func() {
			status, body, _, err := l.get(l.clients + "/v2/steady/manifests/" + tag)
			got <- tagAnswer{status, body, err}
		}()
	}
	return all
}

// examineTag looks at a pinned tag: nothing evicts its images.
func (k *killing) examineTag(tag string, got tagAnswer, died time.Time) {
	versions := k.steady[tag]
	least, known := k.served[tag] // the latest version that must have lasted
	if !known {
		least = -1
	}
	for i, one := range versions {
		if at, told := k.told[one.digest.String()]; told && at.Before(k.stays) {
			least = max(least, i)
		}
	}
	if got.err != nil {
		k.Errorf("round %d: %v", k.round, got.err)
		return
	}
	at := -1
	if got.status == http.StatusOK {
		d := digest.FromBytes(got.body)
		at = slices.IndexFunc(versions, func(one *made) bool { return one.digest == d })
	}
	for _, one := range versions[at+1:] {
		if told, ok := k.told[one.digest.String()]; ok {
			k.forgotten++
			k.oldest = max(k.oldest, died.Sub(told))
		}
	}
	if at < least {
		k.Errorf("round %d: the pinned steady:%s has lost its image or points backwards, at version %d after %d: %d", k.round, tag, at, least, got.status)
	}
	k.served[tag] = at
}

// examineFolder sees to it that nothing lies in the folder but what belongs
// there, and that it is what its name says.
func (k *killing) examineFolder(list retention.Inventory) {
	var total int64
	err := filepath.WalkDir(k.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, _ := filepath.Rel(k.dir, path)
		folders := strings.Split(name, string(filepath.Separator))
		switch {
		case slices.Contains([]string{"format", "lock", "records.db", "records.journal"}, name):
		case folders[0] == "drafts": // of the server that lives
		case len(folders) == 4 && folders[0] == "blobs" && folders[1] == "sha256" && strings.HasPrefix(folders[3], folders[2]):
			content, err := os.ReadFile(path)
			if of, is := strings.CutSuffix(path, ".sums"); is {
				k.examineSums(name, of)
				total += int64(len(content))
				return nil
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil // evicted just now
			}
			if sum := sha256.Sum256(content); err != nil || hex.EncodeToString(sum[:]) != folders[3] {
				k.Errorf("round %d: the file %s is not what its name says: %v", k.round, name, err)
			}
			total += int64(len(content))
		default:
			k.Errorf("round %d: the file %s belongs to nobody", k.round, name)
		}
		return nil
	})
	if err != nil {
		k.Error(err)
	}
	if total > list.Bytes {
		k.Errorf("round %d: %d bytes lie in the folder, and %d are known", k.round, total, list.Bytes)
	}
	k.over = max(k.over, total-killBound)
	if k.over > 64<<10 {
		k.Errorf("round %d: %d bytes more are kept than may be", k.round, k.over)
	}
}

// examineSums sees to it that checksums lie beside content.
func (k *killing) examineSums(name, of string) {
	_, err := os.Lstat(of)
	if _, still := os.Lstat(of + ".sums"); err != nil && still == nil { // or else both were evicted just now
		k.Errorf("round %d: the content of %s is not there: %v", k.round, name, err)
	}
	k.sums++
}

func (k *killing) names(folder string) []string {
	entries, err := os.ReadDir(filepath.Join(k.dir, folder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.Fatal(err)
	}
	var all []string
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}
