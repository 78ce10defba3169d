package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	blobSize  = 256 << 20 // bytes
	smallSize = 2 << 10   // bytes
	// lineRate is what all connections to the upstream share, in bytes a second.
	lineRate = 200e6

	repository    = "library/bench"
	tag           = "1"
	manifestType  = "application/vnd.oci.image.manifest.v1+json"
	octets        = "application/octet-stream"
	upstreamBurst = 256 << 10
)

// upstream is a registry with one image, behind a line of limited speed.
type upstream struct {
	host                  string
	server                *http.Server
	line                  *rate.Limiter
	manifest, small, blob content
	signature, referrers  content      // of the manifest
	sent                  atomic.Int64 // bytes of bodies
	requests              atomic.Int64
}

type content struct {
	digest    string
	mediaType string
	bytes     []byte
}

func newContent(mediaType string, b []byte) content {
	sum := sha256.Sum256(b)
	return content{"sha256:" + hex.EncodeToString(sum[:]), mediaType, b}
}

func random(n int, seed byte) []byte { return randomOf(n, [32]byte{seed}) }

func randomOf(n int, seed [32]byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(b) // It never fails.
	return b
}

func startUpstream() (*upstream, error) {
	u := &upstream{line: rate.NewLimiter(lineRate, upstreamBurst)}
	u.small = newContent(octets, random(smallSize, 1))
	u.blob = newContent(octets, random(blobSize, 2))
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int    `json:"size"`
	}
	manifest, err := json.Marshal(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{
		2, manifestType,
		descriptor{"application/vnd.oci.image.config.v1+json", u.small.digest, smallSize},
		[]descriptor{{"application/vnd.oci.image.layer.v1.tar", u.blob.digest, blobSize}},
	})
	if err != nil {
		return nil, err
	}
	u.manifest = newContent(manifestType, manifest)
	u.signature, u.referrers = newSignature(u.manifest)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u.host = l.Addr().String()
	u.server = &http.Server{Handler: u}
	go func() { _ = u.server.Serve(l) }() // Clients see where it fails.
	return u, nil
}

func (u *upstream) stop() { u.server.Close() }

// paths are what can be asked of the upstream, and so of each server.
func (u *upstream) paths() map[string]content {
	return map[string]content{
		"/v2/":                           {mediaType: "application/json", bytes: []byte("{}")},
		manifestPath(tag):                u.manifest,
		manifestPath(u.manifest.digest):  u.manifest,
		manifestPath(u.signature.digest): u.signature,
		referrersPath(u.manifest.digest): {mediaType: indexType, bytes: u.referrers.bytes},
		blobPath(u.small.digest):         u.small,
		blobPath(u.blob.digest):          u.blob,
	}
}

func manifestPath(ref string) string     { return "/v2/" + repository + "/manifests/" + ref }
func blobPath(digest string) string      { return "/v2/" + repository + "/blobs/" + digest }
func referrersPath(digest string) string { return "/v2/" + repository + "/referrers/" + digest }

// newSignature returns a manifest that refers to a subject, and the index of all
// that does.
func newSignature(subject content) (signature, index content) {
	signature = newContent(manifestType, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.example.signature","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
		manifestType, manifestType, subject.digest, len(subject.bytes)))
	index = newContent(indexType, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"artifactType":"application/vnd.example.signature"}]}`,
		indexType, manifestType, signature.digest, len(signature.bytes)))
	return signature, index
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.requests.Add(1)
	c, ok := u.paths()[r.URL.Path]
	if !ok {
		http.Error(w, `{"errors":[{"code":"NAME_UNKNOWN"}]}`, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", c.mediaType)
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if c.digest != "" {
		w.Header().Set("Docker-Content-Digest", c.digest)
		w.Header().Set("ETag", `"`+c.digest+`"`)
	}
	// ServeContent answers ranges, which a resumed download asks for.
	http.ServeContent(slowWriter{w, r.Context(), u}, r, "", time.Time{}, bytes.NewReader(c.bytes))
}

// slowWriter writes at the line's pace.
type slowWriter struct {
	http.ResponseWriter
	ctx context.Context
	u   *upstream
}

func (w slowWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		piece := p[:min(len(p), upstreamBurst)]
		if err := w.u.line.WaitN(w.ctx, len(piece)); err != nil {
			return written, err
		}
		n, err := w.ResponseWriter.Write(piece)
		w.u.sent.Add(int64(n))
		written += n
		if err != nil {
			return written, err
		}
		p = p[n:]
	}
	return written, nil
}

// get asks a server and compares the body with what it has to be; it may be
// anything if that is nil. It returns how long the first byte took.
func get(ctx context.Context, client *http.Client, method, url, path string, want content) (time.Duration, error) {
	begun := time.Now()
	req, err := http.NewRequestWithContext(ctx, method, url+path, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Accept", manifestType)
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return 0, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, body)
	}
	if method == http.MethodHead {
		return time.Since(begun), nil
	}
	if want.bytes == nil {
		_, err := io.Copy(io.Discard, resp.Body)
		return time.Since(begun), err
	}
	first, rest := time.Duration(0), want.bytes
	buffer := make([]byte, min(len(want.bytes), 256<<10)+1)
	for {
		n, err := resp.Body.Read(buffer)
		if n > 0 && first == 0 {
			first = time.Since(begun)
		}
		if n > len(rest) || !bytes.Equal(buffer[:n], rest[:n]) {
			return first, fmt.Errorf("%s %s: other bytes than the upstream's", method, path)
		}
		rest = rest[n:]
		if err == io.EOF && len(rest) == 0 {
			return first, nil
		}
		if err != nil {
			return first, fmt.Errorf("%s %s: %d bytes short: %w", method, path, len(rest), err)
		}
	}
}
