package proxy_test

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// odd makes up what no registry and no client would send, and some of what they
// would.
type odd struct {
	*rand.Rand
	t       *testing.T
	digests []string  // that exist
	realm   string    // of a token server
	coming  neighbour // what another upstream is about to have
	pushed  int
	paged   atomic.Int64 // pages of lists without an end
}

func oneOf[T any](o *odd, all ...T) T { return all[o.IntN(len(all))] }

func (o *odd) digest() string {
	random := digest.FromString(strconv.Itoa(o.IntN(1 << 20)))
	return oneOf(o,
		oneOf(o, o.digests...), oneOf(o, o.digests...), oneOf(o, o.digests...), random.String(),
		o.coming.digest, "", "abc", "sha256:", "sha256:zz", ":", random.String()[:70], "SHA256:"+random.Encoded(), "sha256:"+strings.ToUpper(random.Encoded()),
		digest.SHA512.FromString("x").String(), "blake3:"+random.Encoded(), "md5:0123456789abcdef0123456789abcdef", "sha256:"+strings.Repeat("a", 5000), "sha256:../../x")
}

func (o *odd) mediaType() string {
	return oneOf(o,
		ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, "application/vnd.docker.distribution.manifest.v2+json",
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v1+prettyjws",
		"application/vnd.oci.artifact.manifest.v1+json", ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageConfig, ocispec.MediaTypeEmptyJSON,
		"", "application/octet-stream", "text/html", "x", "a/b;;=\"", strings.Repeat("a", 300)+"/b", "application/JSON; charset=utf-8")
}

func (o *odd) number() string {
	return oneOf(o, "0", "1", "2", "-1", "9223372036854775807", "9223372036854775808", "1e99", "1.5", `"7"`, "null", strconv.Itoa(o.IntN(10_000)))
}

func (o *odd) text() string { return strconv.Quote(oneOf(o, o.digest(), o.mediaType(), "x", "")) }

// value is a JSON value, for the most part.
func (o *odd) value(depth int) string {
	switch n := o.IntN(9); {
	case n == 0 && depth < 4:
		var all []string
		for range o.IntN(4) {
			all = append(all, o.value(depth+1))
		}
		return "[" + strings.Join(all, ",") + "]"
	case n < 3 && depth < 4:
		return o.object(depth, "digest", "size", "mediaType", "annotations", "urls", "data", "platform", "x")
	case n < 5:
		return o.number()
	case n == 5:
		return oneOf(o, "null", "true", "{}", "[]", "[", "\"", "\xff\xfe")
	}
	return o.text()
}

// object has some of these members, now and then twice, or in another case.
func (o *odd) object(depth int, names ...string) string {
	var all []string
	for _, name := range names {
		for range oneOf(o, 0, 1, 1, 1, 1, 1, 1, 2) {
			all = append(all, strconv.Quote(oneOf(o, name, name, name, name, name, strings.ToUpper(name[:1])+name[1:]))+":"+o.member(depth, name))
		}
	}
	return "{" + strings.Join(all, ",") + "}"
}

func (o *odd) member(depth int, name string) string {
	if o.IntN(12) == 0 {
		return o.value(depth + 1)
	}
	switch name {
	case "digest", "blobSum":
		return strconv.Quote(o.digest())
	case "mediaType", "artifactType":
		return strconv.Quote(o.mediaType())
	case "size":
		return o.number()
	case "schemaVersion":
		return oneOf(o, "2", "2", "2", "1", "3")
	case "config", "subject":
		return o.descriptor(depth)
	case "layers", "manifests", "blobs", "fsLayers":
		n := o.IntN(5)
		if o.IntN(20) == 0 {
			n = 2000
		}
		all := make([]string, n)
		for i := range all {
			all[i] = o.descriptor(depth)
		}
		return "[" + strings.Join(all, ",") + "]"
	case "tags":
		return oneOf(o, `["1","2"]`, "null", `["1",2]`, `["`+strings.Repeat("t", 10_000)+`"]`, `["../x",""]`)
	}
	return o.value(depth + 1)
}

func (o *odd) descriptor(depth int) string {
	return o.object(depth+1, "mediaType", "digest", "size", "blobSum", "annotations", "artifactType", "urls")
}

// index is a list of manifests, for the most part.
func (o *odd) index() string {
	all := make([]string, o.IntN(6))
	for i := range all {
		all[i] = o.descriptor(0)
	}
	return `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[` + strings.Join(all, ",") + `]}`
}

// manifest is one of some kind, for the most part, which may be pushed.
func (o *odd) manifest() (mediaType string, body []byte) {
	mediaType = o.mediaType()
	if o.IntN(4) == 0 {
		return ocispec.MediaTypeImageIndex, []byte(o.index())
	}
	return mediaType, []byte(o.object(0, "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "blobs", "fsLayers", "subject", "annotations"))
}

// pushTo has an upstream have one more manifest, with the right digest.
func (o *odd) pushTo(r *upstreamtest.Registry) {
	mediaType, body := o.manifest()
	o.pushed++
	d := r.AddManifest("other", mediaType, body, "o"+strconv.Itoa(o.pushed%5)).Digest.String()
	o.digests = append(o.digests[:min(len(o.digests), 10)], d)
}

func (o *odd) body() []byte {
	switch o.IntN(16) {
	case 12, 13:
		return []byte(o.index())
	case 14:
		_, body := o.manifest()
		return body
	case 15:
		return []byte(`{"tags":` + o.member(0, "tags") + `,"token":"x","expires_in":` + o.number() + `}`)
	case 0:
		return []byte(strings.Repeat(oneOf(o, "[", `{"a":`, `{"layers":[`), 1+o.IntN(100_000)))
	case 1:
		return []byte("<html><body>" + strings.Repeat("x", o.IntN(10_000)))
	case 2:
		return upstreamtest.Bytes(byte(o.IntN(256)), o.IntN(100_000))
	case 3:
		return nil
	case 4:
		return []byte(`{"errors":` + o.value(0) + `}`)
	}
	whole := o.object(0, "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "blobs", "fsLayers", "subject", "annotations", "tags", "token")
	if o.IntN(10) == 0 {
		whole = whole[:o.IntN(len(whole))]
	}
	return []byte(whole)
}

// header changes some headers of an answer.
func (o *odd) header(h http.Header) {
	for range o.IntN(4) {
		name := oneOf(o, "Content-Type", "Docker-Content-Digest", "Content-Length", "Link", "Etag", "Content-Range", "Warning", "Retry-After",
			"WWW-Authenticate", "Age", "Cache-Control", "Content-Encoding", "Location", "RateLimit-Limit", "RateLimit-Remaining", "OCI-Filters-Applied")
		var values []string
		switch name {
		case "Content-Type":
			values = []string{o.mediaType()}
		case "Docker-Content-Digest", "Etag":
			values = []string{o.digest()}
		case "Link":
			values = []string{oneOf(o, "", "<", `<?n=1&last=1>; rel="next"`, "<?x="+strconv.Itoa(o.IntN(1000))+`>; rel="next"`, `</v2/app/tags/list?x=`+o.digest()+`>; rel=next`, `<http://198.51.100.1/>; rel="last next"`, strings.Repeat("<x>; rel=y, ", 500))}
		case "WWW-Authenticate":
			values = []string{oneOf(o, "Bearer", `Bearer realm="`+o.realm+`",service="x"`, `Bearer realm="`+o.realm+`"`, `Bearer realm="http://127.0.0.1/token"`, `Bearer realm="`, "Basic realm=x", "Negotiate", strings.Repeat("Basic a=b, ", 1000))}
		case "Location":
			values = []string{oneOf(o, "", "/", "http://127.0.0.1:1/", "file:///x", "http://[::1", "//"+strings.Repeat("a", 3000))}
		case "Content-Range":
			values = []string{oneOf(o, "bytes 0-0/1", "bytes 5-1/2", "bytes */x", "bytes 0-9223372036854775807/*")}
		default:
			values = []string{oneOf(o, "", "-1", "0", "1", "99999999999999999999", "x", o.mediaType(), "gzip", `110 - "x"`, "max-age=99999999999999", time.Now().Format(http.TimeFormat))}
		}
		h[http.CanonicalHeaderKey(name)] = values
	}
}

func (o *odd) status() int {
	return oneOf(o, 200, 200, 200, 200, 204, 206, 301, 307, 304, 400, 401, 403, 404, 405, 416, 429, 500, 502, 503, 599)
}

// answer is what an arbitrary upstream says. It decides at once, since others
// draw from it too.
func (o *odd) answer(kind string) upstreamtest.Fault {
	switch n := o.IntN(60); {
	case n == 0 && kind != "blobs":
		return o.endless(kind)
	case n == 1:
		return o.bomb()
	case n == 2:
		return o.pages()
	case n == 3:
		return o.headers()
	case n == 4:
		return func(_ *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, _ upstreamtest.Request) {
			w.Header().Set("Location", req.URL.Path+"?hop="+strconv.FormatInt(o.paged.Add(1), 10))
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	}
	edited := upstreamtest.Answer{Status: o.status(), Header: http.Header{}, Body: o.body()}
	o.header(edited.Header)
	n := o.IntN(50_000)
	switch o.IntN(12) {
	case 0, 1, 2, 3:
		return nil
	case 4, 5: // the headers alone
		return upstreamtest.Edited(func(a *upstreamtest.Answer, _ upstreamtest.Request) {
			for name, values := range edited.Header {
				a.Header[name] = values
			}
		})
	case 6, 7: // the body alone
		return upstreamtest.Edited(func(a *upstreamtest.Answer, _ upstreamtest.Request) { a.Body = edited.Body })
	case 8:
		return oneOf(o, upstreamtest.Hangup(), upstreamtest.CutAfter(n), upstreamtest.StallAfter(n), upstreamtest.Silent(), upstreamtest.Pause(n, time.Duration(n)*time.Millisecond), upstreamtest.Corrupt(n))
	}
	return upstreamtest.Edited(func(a *upstreamtest.Answer, _ upstreamtest.Request) { *a = edited })
}

// question is what an arbitrary client asks.
func (o *odd) question() (method, path string, header http.Header) {
	repo := oneOf(o, "app", "app", "app", "other", "other", "other", o.coming.repository, o.coming.repository, strings.Repeat("a", 300), "a//b", "..")
	path = "/v2/" + hostileName + "/" + repo + oneOf(o,
		"/manifests/1", "/manifests/1", "/manifests/o"+strconv.Itoa(o.IntN(6)), "/manifests/"+o.digest(), "/manifests/"+o.digest(), "/blobs/"+o.digest(), "/blobs/"+o.digest(), "/referrers/"+o.digest(),
		"/referrers/"+o.digest()+"?artifactType="+o.mediaType(), "/tags/list", "/tags/list?n="+strings.Trim(o.number(), `"`)+"&last="+o.digest(), "/manifests/sha256-"+digest.FromString("x").Encoded())
	header = http.Header{}
	for range o.IntN(3) {
		switch o.IntN(4) {
		case 0:
			header.Set("Range", oneOf(o, "bytes=0-10", "bytes=-5", "bytes=5-", "bytes=9-3", "bytes=0-0,2-3,5-", "bytes=99999999999999999999-", "x", strings.Repeat("bytes=0-1,", 1500)))
		case 1:
			header.Set("Accept", oneOf(o, o.mediaType(), "*/*", strings.Repeat(o.mediaType()+",", 100)))
		case 2:
			header.Set("Cache-Control", oneOf(o, "no-cache", "max-age=0", "max-age=x", "only-if-cached"))
		case 3:
			header.Set("If-None-Match", oneOf(o, "*", `"`+o.digest()+`"`, "x"))
		}
	}
	return oneOf(o, http.MethodGet, http.MethodGet, http.MethodGet, http.MethodHead), path, header
}

// digestsOf are those of an image.
func digestsOf(manifest ocispec.Descriptor, m ocispec.Manifest) []string {
	all := []string{manifest.Digest.String(), m.Config.Digest.String()}
	for _, layer := range m.Layers {
		all = append(all, layer.Digest.String())
	}
	return all
}
