package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxManifest is the size of the largest manifest that is read here, to decode
// it or to compute its digest, in bytes.
const maxManifest = 8 << 20

// acceptManifests lists all types (W3): some registries answer 404 for types
// that are not accepted.
func acceptManifests() string {
	return strings.Join([]string{
		ocispec.MediaTypeImageManifest,
		ocispec.MediaTypeImageIndex,
		"application/vnd.docker.distribution.manifest.v2+json",
		"application/vnd.docker.distribution.manifest.list.v2+json",
		"application/vnd.oci.artifact.manifest.v1+json",
		"application/vnd.cncf.oras.artifact.manifest.v1+json",
		"application/vnd.docker.distribution.manifest.v1+prettyjws",
		"application/vnd.docker.distribution.manifest.v1+json",
		"*/*",
	}, ", ")
}

func (r *Remote) manifestRequest(ctx context.Context, method, repo, ref string) request {
	return request{kind: "manifest", method: method, repo: r.endpoint.prefix + repo, path: "manifests/" + ref, accept: acceptOf(ctx)}
}

// Resolve implements Registry.
func (r *Remote) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	d, err := r.manifests.resolve(ctx, content{repo, ref}, func(ctx context.Context, of content) (Descriptor, error) {
		resp, err := r.do(ctx, r.manifestRequest(ctx, http.MethodHead, of.repo, of.ref))
		if err != nil {
			return Descriptor{}, err
		}
		d, err := descriptorOf(resp, of.ref)
		if err == nil && isStale(resp) && isTag(of.ref) {
			err = errStaleHead
		}
		return d, err
	}, func() (Descriptor, error) {
		c, err := r.Manifest(ctx, repo, ref)
		if err != nil {
			return Descriptor{}, err
		}
		defer c.Body.Close()
		content, done, err := r.reading(ctx, maxManifest)(c.Body, c.Size)
		defer done()
		switch {
		case c.Stale && isTag(ref):
			return Descriptor{}, ErrStale
		case err != nil:
			return Descriptor{}, readFailed(err)
		case !bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")):
			return Descriptor{}, fmt.Errorf("%w: not a manifest", ErrInvalidResponse)
		case c.Digest == "":
			c.Digest = digest.FromBytes(content)
		}
		return Descriptor{MediaType: c.MediaType, Digest: c.Digest, Size: int64(len(content))}, nil
	})
	if err != nil {
		return Descriptor{}, fmt.Errorf("resolve %s: %w", imageName(repo, ref), err)
	}
	return d, nil
}

// descriptorOf returns the descriptor in a response to HEAD.
func descriptorOf(resp *http.Response, ref string) (Descriptor, error) {
	resp.Body.Close()
	if isPage(resp, nil) {
		return Descriptor{}, errPage // W34; or a registry that sends its content as HTML (W46)
	}
	c := contentOf(resp, ref)
	return Descriptor{MediaType: c.MediaType, Digest: c.Digest, Size: c.Size}, nil
}

// Manifest implements Registry.
func (r *Remote) Manifest(ctx context.Context, repo, ref string) (Content, error) {
	resp, err := r.do(ctx, r.manifestRequest(ctx, http.MethodGet, repo, ref))
	if err != nil {
		return Content{}, fmt.Errorf("manifest %s: %w", imageName(repo, ref), err)
	}
	c := contentOf(resp, ref)
	if isEncoded(resp) {
		if c, err = r.decodeManifest(resp, c, ref); err != nil {
			return Content{}, fmt.Errorf("manifest %s: %w", imageName(repo, ref), err)
		}
	}
	r.manifests.sawContent(content{repo, ref})
	return c, nil
}

// decodeManifest decodes a manifest with a content coding. Its digest may be
// that of the encoded bytes.
func (r *Remote) decodeManifest(resp *http.Response, c Content, ref string) (Content, error) {
	read := r.reading(resp.Request.Context(), maxManifest)
	defer resp.Body.Close() // which ends waiting for room, too
	raw, done, err := read(resp.Body, resp.ContentLength)
	decoded := func() {}
	defer func() {
		done()
		decoded()
	}()
	if err != nil {
		return Content{}, err
	}
	want := c.Digest
	if d, err := digest.Parse(ref); err == nil {
		want = d
	}
	content := raw
	if want == "" || !want.Algorithm().Available() || want.Algorithm().FromBytes(raw) != want {
		if content, decoded, err = decode(resp.Header.Get("Content-Encoding"), raw, maxManifest, read); err != nil {
			return Content{}, err
		}
	}
	c.Body, c.Size = io.NopCloser(bytes.NewReader(content)), int64(len(content))
	return c, nil
}

// contentOf reads the header of a response with content.
func contentOf(resp *http.Response, ref string) Content {
	c := Content{Body: resp.Body, MediaType: mediaTypeOf(resp), Size: resp.ContentLength, Warnings: warningsOf(resp), Stale: isStale(resp)}
	if etag := resp.Header.Get("ETag"); !strings.HasPrefix(etag, "W/") {
		c.ETag = etag
	}
	if d, err := digest.Parse(resp.Header.Get("Docker-Content-Digest")); err == nil {
		c.Digest = d
	}
	// A digest in the request overrides the header's, because the bytes are
	// verified against it (F31).
	if want, err := digest.Parse(ref); err == nil {
		c.Digest = want
	}
	// Some respond to HEAD with a length of 0, which no manifest has.
	if c.Size == 0 && resp.Request.Method == http.MethodHead && !isEmpty(c.Digest) || isEncoded(resp) {
		c.Size = -1
	}
	return c
}

func isEmpty(d Digest) bool {
	return d != "" && d.Algorithm().Available() && d == d.Algorithm().FromBytes(nil)
}

func warningsOf(resp *http.Response) []string {
	var all []string
	for _, w := range resp.Header.Values("Warning") {
		if strings.HasPrefix(w, "299 ") {
			all = append(all, w)
		}
	}
	return all
}

// isStale reports whether a mirror, or a cache in between, has answered without
// asking its own upstream: its answer is stale, could not be validated, or it is
// disconnected (RFC 7234, section 5.5).
func isStale(resp *http.Response) bool {
	for _, header := range resp.Header.Values("Warning") {
		for _, warning := range splitUnquoted(header) {
			switch code, _, _ := strings.Cut(warning, " "); code {
			case "110", "111", "112":
				return true
			}
		}
	}
	return false
}

// splitUnquoted splits a header at the commas outside of quotes.
func splitUnquoted(header string) (all []string) {
	quoted, begin := false, 0
	for i := 0; i < len(header); i++ {
		switch c := header[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			all = append(all, strings.TrimSpace(header[begin:i]))
			begin = i + 1
		}
	}
	return append(all, strings.TrimSpace(header[begin:]))
}

// errStaleHead is the ErrStale of a response to HEAD that was a success.
var errStaleHead = fmt.Errorf("%w: what the tag points at may have changed", ErrStale)

func isTag(ref string) bool { return !strings.Contains(ref, ":") }

var errPage = &statusError{failedResponse{status: http.StatusOK, form: formPage}, ErrInvalidResponse, "a web page"}

// readFailed maps an error of reading a body to one of the package's.
func readFailed(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
