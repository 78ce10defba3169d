package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

func TestErrorsHaveOneAnswer(t *testing.T) {
	limited := &upstream.RateLimitedError{RetryAfter: 1500 * time.Millisecond}
	for _, c := range []struct {
		name   string
		err    error
		kind   kind
		status int
		code   string
		says   string
	}{
		{"a manifest that is not there", upstream.ErrNotFound, kindManifest, 404, codeManifestUnknown, "ghcr.io"},
		{"a blob that is not there", upstream.ErrNotFound, kindBlob, 404, codeBlobUnknown, "ghcr.io"},
		{"W54: a repository that is not there", upstream.ErrNameUnknown, kindReferrers, 404, codeNameUnknown, "ghcr.io"},
		{"W54: referrers that are not there are not a repository that is not", upstream.ErrNotFound, kindReferrers, 404, codeManifestUnknown, "ghcr.io"},
		{"an upstream that does not do this", upstream.ErrNoAPI, kindReferrers, 404, codeUnsupported, "ghcr.io"},
		{"an upstream that refuses the question", &upstream.RefusedError{Status: 415, Code: "UNSUPPORTED"}, kindManifest, 415, codeUnsupported, "ghcr.io"},
		{"an upstream that refuses without a code", &upstream.RefusedError{Status: 400}, kindBlob, 400, codeUnsupported, "ghcr.io"},
		{"an upstream that refuses to tell referrers", &upstream.RefusedError{Status: 406, Code: "UNSUPPORTED"}, kindReferrers, 503, codeUnavailable, "there may be some"},
		{"tags that are not there: the repository is not", upstream.ErrNotFound, kindTags, 404, codeNameUnknown, "ghcr.io"},
		{"an upstream without lists of tags", upstream.ErrUnsupported, kindTags, 405, codeUnsupported, "ghcr.io"},
		{"an upstream that denies access", upstream.ErrDenied, kindBlob, 403, codeDenied, "credentials of ghcr.io"},
		{"a repository that is not allowed", pull.ErrForbidden, kindBlob, 403, codeDenied, "allow and deny of ghcr.io"},
		{"W30: a rate limit", limited, kindManifest, 429, codeTooMany, "ghcr.io"},
		{"silence", upstream.ErrTimeout, kindBlob, 504, codeUnavailable, "ghcr.io"},
		{"a deadline of our own", context.DeadlineExceeded, kindBlob, 504, codeUnavailable, "ghcr.io"},
		{"offline", pull.ErrOffline, kindBlob, 404, codeBlobUnknown, "offline, and not kept here: this mirror may not ask"},
		{"offline, and a manifest", pull.ErrOffline, kindManifest, 404, codeManifestUnknown, "offline, and not kept here: this mirror may not ask"},
		{"offline, and nobody knows", pull.ErrOfflineUnknown, kindManifest, 503, codeUnavailable, "nothing that is kept here says whether there is any"},
		{"offline, and referrers", pull.ErrOffline, kindReferrers, 503, codeUnavailable, "offline"},
		{"no connection", upstream.ErrRefused, kindBlob, 502, codeUnavailable, "ghcr.io"},
		{"W34: not a valid registry response", upstream.ErrInvalidResponse, kindManifest, 502, codeUnavailable, "ghcr.io"},
		{"no room in memory", fmt.Errorf("tags of another: %w", upstream.ErrCrowded), kindTags, 503, codeUnavailable, "as its memory allows"},
		{"no room in memory for referrers", upstream.ErrCrowded, kindReferrers, 503, codeUnavailable, "as its memory allows"},
		{"a mirror that stops", context.Canceled, kindManifest, 503, codeUnavailable, "stopping"},
		{"anything else", errors.New("open /var/lib/entrepot/blobs: permission denied"), kindBlob, 500, codeUnknown, "log"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := route{kind: c.kind, repo: pull.Repository{Upstream: "ghcr.io", Name: "org/app"}}
			a := errorResponseFor(fmt.Errorf("what was asked: %w", c.err), q)
			if a.status != c.status || a.code != c.code {
				t.Errorf("%d %s, want %d %s", a.status, a.code, c.status, c.code)
			}
			if !strings.Contains(a.message, c.says) || strings.Contains(a.message, "/var/lib") {
				t.Errorf("it says: %s", a.message)
			}
		})
	}
}

func TestW6ErrorsAreJSON(t *testing.T) {
	f := newFace(t, script{manifest: func(pull.Repository, string) (pull.Manifest, error) {
		return pull.Manifest{}, fmt.Errorf(`manifest "x": %w`, &upstream.RateLimitedError{RetryAfter: 1500 * time.Millisecond})
	}})
	got := f.do(http.MethodGet, "/v2/app/manifests/1")
	if got.status != http.StatusTooManyRequests {
		t.Errorf("status %d", got.status)
	}
	got.wantHeader(t, "Content-Type", "application/json", "Retry-After", "2", "Docker-Distribution-Api-Version", "registry/2.0", "Www-Authenticate", "")
	var fields map[string][]map[string]any
	if err := json.Unmarshal(got.body, &fields); err != nil {
		t.Fatal(err)
	}
	if len(fields) != 1 || len(fields["errors"]) != 1 || fields["errors"][0]["code"] != codeTooMany {
		t.Errorf("body %s", got.body)
	}
	for _, key := range []string{"code", "message", "detail"} {
		if _, ok := fields["errors"][0][key]; !ok {
			t.Errorf("no %s in %s", key, got.body)
		}
	}
	head := f.do(http.MethodHead, "/v2/app/manifests/1")
	if head.status != got.status || len(head.body) > 0 || head.length != got.length {
		t.Errorf("HEAD: %d with length %d, want %d with %d", head.status, head.length, got.status, got.length)
	}
}

func TestWhoFindsNoRoomIsToldToComeBack(t *testing.T) {
	f := newFace(t, script{manifest: func(pull.Repository, string) (pull.Manifest, error) {
		return pull.Manifest{}, fmt.Errorf(`manifest "x": %w`, upstream.ErrCrowded)
	}})
	got := f.do(http.MethodGet, "/v2/app/manifests/1")
	if got.status != http.StatusServiceUnavailable {
		t.Errorf("status %d", got.status)
	}
	got.wantHeader(t, "Retry-After", "5")
}

func TestPushesAreToldWhereToGo(t *testing.T) {
	f := newFace(t, script{})
	got := f.do(http.MethodPost, "/v2/app/blobs/uploads/")
	if got.status != http.StatusMethodNotAllowed || got.code() != codeUnsupported || !strings.Contains(string(got.body), "read-only mirror") {
		t.Errorf("%d %s", got.status, got.body)
	}
	got.wantHeader(t, "Allow", "GET, HEAD")
}
