package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A small image has one or two layers of a few KiB. Every tenth has a referrer,
// which its registry lists by tag. What an image is follows from its number, so
// that there may be any number of them.

const (
	scaleUpstream      = "docker.io"
	imagesOfRepository = 100
	configType         = "application/vnd.oci.image.config.v1+json"
	layerType          = "application/vnd.oci.image.layer.v1.tar"
	emptyType          = "application/vnd.oci.empty.v1+json"
	shelvesInMemory    = 64
)

// smallImage is what a client pulls of one image.
type smallImage struct {
	repository, tag string
	manifest        content
	blobs           []content
	signature       *content // the referrer, if there is one
	signed          content  // its layer
}

func repositoryOf(number int) string {
	return fmt.Sprintf("scale/app%05d", number/imagesOfRepository)
}
func tagOf(number int) string { return strconv.Itoa(number % imagesOfRepository) }

type namedContent struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

func (c content) named() namedContent { return namedContent{c.mediaType, c.digest, len(c.bytes)} }

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only for types that JSON can't encode
	}
	return b
}

// newSmallImage makes the image with that number.
func newSmallImage(number int) smallImage {
	image := smallImage{repository: repositoryOf(number), tag: tagOf(number)}
	config := newContent(configType, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{"Env":["NUMBER=%d"]},"rootfs":{"type":"layers"}}`, number))
	image.blobs = []content{config}
	layers := []namedContent{}
	for n := range 1 + number%2 {
		seed := [32]byte{}
		copy(seed[:], fmt.Sprintf("%d.%d", number, n))
		l := newContent(layerType, randomOf(2600+number%500, seed))
		image.blobs, layers = append(image.blobs, l), append(layers, l.named())
	}
	image.manifest = newContent(manifestType, marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": config.named(), "layers": layers,
		"annotations": map[string]string{"org.opencontainers.image.title": "image " + strconv.Itoa(number)},
	}))
	if number%10 == 0 {
		image.signed = newContent(octets, fmt.Appendf(nil, `{"critical":{"image":%q},"pad":%0500d}`, image.manifest.digest, number))
		signature := newContent(manifestType, marshal(map[string]any{
			"schemaVersion": 2, "mediaType": manifestType, "artifactType": "application/vnd.example.signature",
			"config":  newContent(emptyType, []byte("{}")).named(),
			"layers":  []namedContent{image.signed.named()},
			"subject": image.manifest.named(),
		}))
		image.signature = &signature
	}
	return image
}

// smallShelf is a registry that has so many small images.
type smallShelf struct {
	images int
	host   string

	mu    sync.Mutex
	ready map[string]map[string]content // by repository, and tag or digest
	order []string                      // of those that are ready
}

func newSmallShelf(images int) *smallShelf {
	return &smallShelf{images: images, ready: map[string]map[string]content{}}
}

// find returns what a repository has under a tag or a digest.
func (s *smallShelf) find(repository, ref string) (content, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	has, ok := s.ready[repository]
	if !ok {
		number, err := strconv.Atoi(strings.TrimPrefix(repository, "scale/app"))
		if err != nil || number*imagesOfRepository >= s.images || repositoryOf(number*imagesOfRepository) != repository {
			return content{}, false
		}
		has = s.make(number)
		s.ready[repository], s.order = has, append(s.order, repository)
		if len(s.order) > shelvesInMemory {
			delete(s.ready, s.order[0])
			s.order = slices.Delete(s.order, 0, 1)
		}
	}
	c, ok := has[ref]
	return c, ok
}

func (s *smallShelf) make(repository int) map[string]content {
	all := map[string]content{}
	first := repository * imagesOfRepository
	for number := first; number < min(first+imagesOfRepository, s.images); number++ {
		image := newSmallImage(number)
		for _, c := range append(slices.Clone(image.blobs), image.manifest) {
			all[c.digest] = c
		}
		all[image.tag] = image.manifest
		if image.signature == nil {
			continue
		}
		empty := newContent(emptyType, []byte("{}"))
		list := newContent(indexType, marshal(map[string]any{
			"schemaVersion": 2, "mediaType": indexType, "manifests": []namedContent{image.signature.named()},
		}))
		all[strings.Replace(image.manifest.digest, ":", "-", 1)] = list
		for _, c := range []content{list, *image.signature, image.signed, empty} {
			all[c.digest] = c
		}
	}
	return all
}

func (s *smallShelf) start() (stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.host = l.Addr().String()
	server := &http.Server{Handler: s}
	go func() { _ = server.Serve(l) }() // Clients see where it fails.
	return func() { server.Close() }, nil
}

func (s *smallShelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" {
		return
	}
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	if len(path) != 4 || path[2] == "referrers" {
		http.NotFound(w, r) // it has no such API
		return
	}
	c, ok := s.find(path[0]+"/"+path[1], path[3])
	if !ok {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`))
		return
	}
	w.Header().Set("Content-Type", c.mediaType)
	w.Header().Set("Docker-Content-Digest", c.digest)
	w.Header().Set("Content-Length", strconv.Itoa(len(c.bytes)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(c.bytes) // whoever reads sees what is missing
	}
}
