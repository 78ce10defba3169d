package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Waits bound how long a Remote waits, so that a "no" is fast (W33). Zero
// means the default.
type Waits struct {
	Connect time.Duration // for a connection: 5 s
	TLS     time.Duration // for its handshake: 5 s
	Header  time.Duration // for the first header of an answer: 10 s
	Silence time.Duration // in the middle of a body: 10 s
}

func (w Waits) withDefaults() Waits {
	w.Connect = cmp.Or(w.Connect, 5*time.Second)
	w.TLS = cmp.Or(w.TLS, 5*time.Second)
	w.Header = cmp.Or(w.Header, 10*time.Second)
	w.Silence = cmp.Or(w.Silence, 10*time.Second)
	return w
}

// maxList bounds the bytes of one list (tags, referrers) with all its pages,
// maxPages how many pages that may be.
const (
	maxList  = 64 << 20
	maxPages = 1000
)

// RemoteOptions say how to reach a registry.
type RemoteOptions struct {
	// Name is what the upstream is called, for messages and, where
	// SendNamespace is set, for the ns parameter that tells a mirror in
	// between which registry is meant.
	Name          string
	SendNamespace bool
	// Endpoint is the base URL of the registry, http or https, without /v2.
	Endpoint string
	// Credentials returns user name and password at the time of use; nil
	// means anonymous.
	Credentials func(ctx context.Context) (Credentials, error)
	// RootCAs are believed beside the system's; nil means the system's.
	RootCAs            *x509.CertPool
	InsecureSkipVerify bool
	// TrustedRealms are hosts outside of the registry's domain whose token
	// servers may be used.
	TrustedRealms []string
	// AllowPrivateRedirects lets a public registry redirect to private
	// addresses.
	AllowPrivateRedirects bool
	UserAgent             string
	Waits                 Waits
	// Observe is told of every request when its headers are in; nil is fine.
	Observe func(Observation)
}

// Credentials are what a registry or its token server is shown.
type Credentials struct {
	Username, Password string
	// IdentityToken is an OAuth2 refresh token, instead of the two.
	IdentityToken string
}

// Observation is one request to an upstream.
type Observation struct {
	Kind      string // manifest, blob, tags, referrers, token
	Method    string
	Status    int // 0 where no answer came
	Duration  time.Duration
	Limit     int // of the rate, 0 where it is not told
	Remaining int
	Window    time.Duration
}

// Remote is a Registry over HTTP.
type Remote struct {
	opts   RemoteOptions
	base   *url.URL
	guard  *guard
	client *http.Transport
	auth   *authority
}

// NewRemote returns a Remote. It dials nobody yet.
func NewRemote(opts RemoteOptions) (*Remote, error) {
	base, err := url.Parse(strings.TrimSuffix(opts.Endpoint, "/"))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("endpoint %q of %s is no http or https URL", opts.Endpoint, opts.Name)
	}
	opts.Waits = opts.Waits.withDefaults()
	r := &Remote{opts: opts, base: base}
	r.guard = &guard{dialer: net.Dialer{Timeout: opts.Waits.Connect}, home: base.Hostname(), allow: opts.AllowPrivateRedirects}
	r.client = &http.Transport{
		Proxy:                  r.guard.throughProxy(),
		DialContext:            r.guard.dial,
		TLSHandshakeTimeout:    opts.Waits.TLS,
		ResponseHeaderTimeout:  opts.Waits.Header,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,                                                                            // W2: bytes are passed on as they are
		TLSClientConfig:        &tls.Config{RootCAs: opts.RootCAs, InsecureSkipVerify: opts.InsecureSkipVerify}, //nolint:gosec // the configuration's wish
	}
	r.auth = newAuthority(r)
	return r, nil
}

// Close releases idle connections.
func (r *Remote) Close() { r.client.CloseIdleConnections() }

// acceptManifests names everything (W3): some registries answer 404 for types
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

// Resolve implements Registry.
func (r *Remote) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	resp, err := r.do(ctx, ask{kind: "manifest", method: http.MethodHead, repo: repo, path: "manifests/" + ref, accept: acceptManifests(), redirects: true})
	if err != nil {
		return Descriptor{}, fmt.Errorf("resolve %s: %w", named(repo, ref), err)
	}
	resp.Body.Close()
	c, err := contentOf(resp, ref)
	if err != nil {
		return Descriptor{}, fmt.Errorf("resolve %s: %w", named(repo, ref), err)
	}
	return Descriptor{MediaType: c.MediaType, Digest: c.Digest, Size: c.Size}, nil
}

// Manifest implements Registry.
func (r *Remote) Manifest(ctx context.Context, repo, ref string) (Content, error) {
	resp, err := r.do(ctx, ask{kind: "manifest", method: http.MethodGet, repo: repo, path: "manifests/" + ref, accept: acceptManifests(), redirects: true})
	if err != nil {
		return Content{}, fmt.Errorf("manifest %s: %w", named(repo, ref), err)
	}
	c, err := contentOf(resp, ref)
	if err != nil {
		resp.Body.Close()
		return Content{}, fmt.Errorf("manifest %s: %w", named(repo, ref), err)
	}
	return c, nil
}

// ResolveBlob implements Registry.
func (r *Remote) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	resp, err := r.do(ctx, ask{kind: "blob", method: http.MethodHead, repo: repo, path: "blobs/" + d.String(), redirects: true})
	if err != nil {
		return Descriptor{}, fmt.Errorf("resolve blob %s: %w", named(repo, d.String()), err)
	}
	resp.Body.Close()
	c, err := contentOf(resp, d.String())
	if err != nil {
		return Descriptor{}, fmt.Errorf("resolve blob %s: %w", named(repo, d.String()), err)
	}
	return Descriptor{MediaType: c.MediaType, Digest: d, Size: c.Size}, nil
}

// Blob implements Registry.
func (r *Remote) Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	a := ask{kind: "blob", method: http.MethodGet, repo: repo, path: "blobs/" + d.String(), redirects: true}
	switch {
	case n >= 0:
		a.byteRange = fmt.Sprintf("bytes=%d-%d", from, from+n-1)
	case from > 0:
		a.byteRange = fmt.Sprintf("bytes=%d-", from)
	}
	resp, err := r.do(ctx, a)
	if err != nil {
		return Content{}, fmt.Errorf("blob %s: %w", named(repo, d.String()), err)
	}
	c, err := contentOf(resp, d.String())
	if err == nil && resp.StatusCode == http.StatusPartialContent {
		c.From, c.Size, err = parseContentRange(resp.Header.Get("Content-Range"))
		if err == nil && (a.byteRange == "" || c.From != from) {
			err = fmt.Errorf("%w: asked for bytes from %d, got %s", ErrBadAnswer, from, resp.Header.Get("Content-Range"))
		}
	}
	if err != nil {
		resp.Body.Close()
		return Content{}, fmt.Errorf("blob %s: %w", named(repo, d.String()), err)
	}
	return c, nil
}

// Referrers implements Registry.
func (r *Remote) Referrers(ctx context.Context, repo string, subject Digest) ([]Descriptor, error) {
	a := ask{kind: "referrers", method: http.MethodGet, repo: repo, path: "referrers/" + subject.String(), accept: ocispec.MediaTypeImageIndex}
	all := []Descriptor{}
	err := r.pages(ctx, a, func(resp *http.Response, body []byte) error {
		if mediaTypeOf(resp) != ocispec.MediaTypeImageIndex {
			return fmt.Errorf("%w: the answer is %q", ErrNoAPI, mediaTypeOf(resp))
		}
		var index ocispec.Index
		if err := json.Unmarshal(body, &index); err != nil {
			return fmt.Errorf("%w: %w", ErrBadAnswer, err)
		}
		all = append(all, index.Manifests...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("referrers of %s: %w", named(repo, subject.String()), err)
	}
	return all, nil
}

// Tags implements Registry.
func (r *Remote) Tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	resp, err := r.do(ctx, ask{kind: "tags", method: http.MethodGet, repo: repo, path: "tags/list", query: page, accept: "application/json", redirects: true})
	if err != nil {
		return TagList{}, fmt.Errorf("tags of %s: %w", repo, err)
	}
	body, err := readAll(resp, maxList)
	var list struct {
		Tags *[]string `json:"tags"`
	}
	if err == nil {
		if err = json.Unmarshal(body, &list); err != nil || isHTML(resp) {
			err = fmt.Errorf("%w: no list of tags", ErrBadAnswer)
		}
	}
	var next *url.URL
	if err == nil {
		next, err = nextPage(resp)
	}
	if err != nil {
		return TagList{}, fmt.Errorf("tags of %s: %w", repo, err)
	}
	answer := TagList{Tags: []string{}}
	if list.Tags != nil {
		answer.Tags = *list.Tags
	}
	if next != nil {
		answer.Next = next.Query()
		answer.Next.Del("ns")
	}
	return answer, nil
}

// pages reads a list to its end.
func (r *Remote) pages(ctx context.Context, a ask, read func(*http.Response, []byte) error) error {
	budget := int64(maxList)
	for range maxPages {
		resp, err := r.do(ctx, a)
		if err != nil {
			return err
		}
		body, err := readAll(resp, budget)
		if err != nil {
			return err
		}
		budget -= int64(len(body))
		if err := read(resp, body); err != nil {
			return err
		}
		next, err := nextPage(resp)
		if next == nil || err != nil {
			return err
		}
		a.url = next
	}
	return fmt.Errorf("%w: over %d pages", ErrBadAnswer, maxPages)
}

func readAll(resp *http.Response, most int64) ([]byte, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err == nil && int64(len(body)) > most {
		err = fmt.Errorf("%w: over %d bytes", ErrBadAnswer, most)
	}
	return body, err
}

func named(repo, ref string) string {
	if strings.Contains(ref, ":") {
		return repo + "@" + ref
	}
	return repo + ":" + ref
}

// contentOf reads the headers of an answer about content.
func contentOf(resp *http.Response, ref string) (Content, error) {
	c := Content{Body: resp.Body, MediaType: mediaTypeOf(resp), Size: resp.ContentLength, Warnings: warningsOf(resp)}
	if isHTML(resp) {
		return c, fmt.Errorf("%w: a web page", ErrBadAnswer) // W34
	}
	if d, err := digest.Parse(resp.Header.Get("Docker-Content-Digest")); err == nil {
		c.Digest = d
	}
	if want, err := digest.Parse(ref); err == nil && c.Digest != "" && c.Digest.Algorithm() == want.Algorithm() && c.Digest != want {
		return c, fmt.Errorf("%w: asked for %s, the answer says %s", ErrBadAnswer, want, c.Digest)
	}
	return c, nil
}

func mediaTypeOf(resp *http.Response) string {
	mediaType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return mediaType
}

func isHTML(resp *http.Response) bool {
	return slices.Contains([]string{"text/html", "application/xhtml+xml"}, mediaTypeOf(resp))
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

// parseContentRange reads "bytes 0-9/10" (RFC 9110, section 14.4). The size is
// -1 for "*".
func parseContentRange(header string) (from, size int64, err error) {
	bad := fmt.Errorf("%w: Content-Range %q", ErrBadAnswer, header)
	rest, ok := strings.CutPrefix(header, "bytes ")
	if !ok {
		return 0, 0, bad
	}
	span, total, ok := strings.Cut(rest, "/")
	first, last, ok2 := strings.Cut(span, "-")
	if !ok || !ok2 {
		return 0, 0, bad
	}
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	size = -1
	var err3 error
	if total != "*" {
		size, err3 = strconv.ParseInt(total, 10, 64)
	}
	if errors.Join(err1, err2, err3) != nil || from < 0 || to < from || total != "*" && size <= to {
		return 0, 0, bad
	}
	return from, size, nil
}
