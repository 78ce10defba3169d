package pull_test

import (
	"errors"
	"fmt"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// offlineQuestions are all kinds of questions about an image that is kept, and
// about what is not. ok is what is said of them.
type offlineQuestion struct {
	name string
	ask  func(t *testing.T, m mirrortest.Mirror) (says string, err error)
	says string
	err  error
}

func offlineQuestions(kept, unasked, layer pull.Digest) []offlineQuestion {
	nowhere := mirrortest.IndexAlgorithm.FromString("nowhere")
	manifest := func(ref string) func(*testing.T, mirrortest.Mirror) (string, error) {
		return func(t *testing.T, m mirrortest.Mirror) (string, error) {
			got, err := m.ManifestFor(t.Context(), mirrortest.App, ref, []string{"application/vnd.other"}, pull.NoOlderThan(0))
			return fmt.Sprintf("stale %v", got.Stale), err
		}
	}
	blob := func(d pull.Digest, want pull.Want) func(*testing.T, mirrortest.Mirror) (string, error) {
		return func(t *testing.T, m mirrortest.Mirror) (string, error) {
			b, err := m.Blob(t.Context(), mirrortest.App, d, want)
			if err != nil {
				return "", err
			}
			defer b.Close()
			return fmt.Sprint(b.Size()), nil
		}
	}
	head := func(d pull.Digest) func(*testing.T, mirrortest.Mirror) (string, error) {
		return func(t *testing.T, m mirrortest.Mirror) (string, error) {
			desc, _, err := m.ResolveBlob(t.Context(), mirrortest.App, d)
			return fmt.Sprint(desc.Size), err
		}
	}
	listed := func(d pull.Digest) func(*testing.T, mirrortest.Mirror) (string, error) {
		return func(t *testing.T, m mirrortest.Mirror) (string, error) {
			got, err := m.Referrers(t.Context(), mirrortest.App, d, pull.NoOlderThan(0))
			return fmt.Sprintf("%v, stale %v", mirrortest.Types(got), got.Stale), err
		}
	}
	tags := func(repo pull.Repository, page url.Values) func(*testing.T, mirrortest.Mirror) (string, error) {
		return func(t *testing.T, m mirrortest.Mirror) (string, error) {
			got, err := m.Tags(t.Context(), repo, page)
			return fmt.Sprint(got.Tags, len(got.Warnings)), err
		}
	}
	part := pull.Want{Parts: func(int64) []pull.Span { return []pull.Span{{From: 1, To: 5}} }}
	return []offlineQuestion{
		{"a tag that is kept", manifest("1"), "stale true", nil},
		{"a manifest that is kept", manifest(kept.String()), "stale false", nil},
		{"a blob that is kept", blob(layer, pull.Want{}), "50", nil},
		{"a part of it", blob(layer, part), "50", nil},
		{"whether it is there", head(layer), "50", nil},
		{"the referrers of an image without any", listed(kept), "[], stale true", nil},
		{"a tag that is not kept", manifest("3"), "", pull.ErrOffline},
		{"a manifest that is not kept", manifest(nowhere.String()), "", pull.ErrOffline},
		{"a blob that is not kept", blob(nowhere, pull.Want{}), "", pull.ErrOffline},
		{"a part of a blob that is not kept", blob(nowhere, part), "", pull.ErrOffline},
		{"whether a blob is there that is not kept", head(nowhere), "", pull.ErrOffline},
		{"the tag of the referrers of an image without any", manifest(referrers.TagOf(kept)), "", upstream.ErrNotFound},
		{"the referrers of an image that was never asked about", listed(unasked), "", pull.ErrOfflineUnknown},
		{"the tag of its referrers", manifest(referrers.TagOf(unasked)), "", pull.ErrOfflineUnknown},
		{"the tag of its signatures", manifest(referrers.TagOf(unasked) + ".sig"), "", pull.ErrOfflineUnknown},
		{"the referrers of a manifest that is not kept", listed(nowhere), "", pull.ErrOfflineUnknown},
		{"the tags", tags(mirrortest.App, nil), "[1 2] 1", nil},
		{"a page of the tags", tags(mirrortest.App, url.Values{"last": {"1"}}), "[2] 1", nil},
		{"a page that only the upstream knows", tags(mirrortest.App, url.Values{"next_page": {"x"}}), "", pull.ErrOfflineUnknown},
		{"the tags of a repository of which nothing is kept", tags(pull.Repository{Upstream: "hub", Name: "other"}, nil), "", upstream.ErrNameUnknown},
	}
}

// TestOfflineAnswers: each kind of question has its answer (decisions 10 and 13)
// without any wait, whether the whole mirror is offline or one upstream.
func TestOfflineAnswers(t *testing.T) {
	for name, change := range map[string]func(*mirror.Options){
		"the mirror":  func(opts *mirror.Options) { opts.Rules.Offline = true },
		"an upstream": func(opts *mirror.Options) { opts.Upstreams[0].Offline = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				kept, layer := o.Image("app", "1", mirrortest.Bytes(1, 50))
				unasked, _ := o.Image("app", "2", mirrortest.Bytes(2, 50))
				m := mirrortest.New(t, o, nil)
				m.PullImage(t, mirrortest.App, "1")
				m.PullImage(t, mirrortest.App, "2")
				if _, err := m.Referrers(t.Context(), mirrortest.App, kept.Digest); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				o.Transcript()
				off := mirrortest.New(t, o, func(opts *mirror.Options) {
					opts.Blobs, opts.Records = m.Blobs, m.Records
					change(opts)
				})
				off.StartPrefetching()
				for _, q := range offlineQuestions(kept.Digest, unasked.Digest, layer.Digest) {
					began := time.Now()
					says, err := q.ask(t, off)
					switch {
					case !errors.Is(err, q.err), err != nil && q.err == nil, err == nil && says != q.says:
						t.Errorf("%s: %q, %v; want %q, %v", q.name, says, err, q.says, q.err)
					case errors.Is(err, pull.ErrOfflineUnknown) != (q.err == pull.ErrOfflineUnknown): //nolint:errorlint // which of the two it is
						t.Errorf("%s: %v is not known to be absent", q.name, err)
					}
					if took := time.Since(began); took > 0 {
						t.Errorf("%s: it took %v", q.name, took)
					}
				}
				time.Sleep(time.Hour)
				mirrortest.WantTranscript(t, o)
			})
		})
	}
}

// TestAnUpstreamThatIsOfflineLeavesTheOthers: what one upstream must not be
// asked, another is.
func TestAnUpstreamThatIsOfflineLeavesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, silent := mirrortest.NewOrigin(), mirrortest.NewOrigin()
		_, layer := asked.Image("app", "1", mirrortest.Bytes(1, 50))
		silent.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, asked, func(opts *mirror.Options) {
			opts.Upstreams = append(opts.Upstreams, pull.Upstream{Name: "closed", Endpoints: []upstream.Endpoint{silent}, Offline: true})
		})
		closed := pull.Repository{Upstream: "closed", Name: "app"}
		if _, err := m.Manifest(t.Context(), closed, "1"); !errors.Is(err, pull.ErrOffline) {
			t.Errorf("a tag of the upstream that is offline: %v", err)
		}
		m.PullImage(t, mirrortest.App, "1")
		// The same bytes, which nothing says that the other one has.
		if _, err := m.Fetch(closed, layer.Digest); !errors.Is(err, pull.ErrOffline) {
			t.Errorf("a blob of the upstream that is offline: %v", err)
		}
		if err := m.FetchReferrers(t.Context(), closed, layer.Digest); !errors.Is(err, pull.ErrOffline) {
			t.Errorf("its referrers: %v", err)
		}
		mirrortest.WantTranscript(t, silent)
	})
}

// TestWhatWasImportedIsNotStale: an upstream that is offline can say nothing
// newer. One that is away could, and one that has said something else since has.
func TestWhatWasImportedIsNotStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		image, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, nil)
		m.PullImage(t, mirrortest.App, "1")
		rec, _ := m.Ledger.Tag(mirrortest.App, "1")
		imported := rec
		imported.Imported = metadata.Import{At: time.Now(), From: "month.tar"}
		m.Ledger.PutTag(mirrortest.App, "1", imported)
		m.Ledger.PutReferrers(mirrortest.App, image.Digest, metadata.Referrers{At: time.Now(), Imported: true})
		isStale := func(offline bool) [2]bool {
			t.Helper()
			m := mirrortest.New(t, o, func(opts *mirror.Options) {
				opts.Blobs, opts.Records, opts.Rules.Offline = m.Blobs, m.Records, offline
			})
			tag, err := m.Manifest(t.Context(), mirrortest.App, "1")
			if err != nil {
				t.Fatal(err)
			}
			listed, err := m.Referrers(t.Context(), mirrortest.App, image.Digest)
			if err != nil {
				t.Fatal(err)
			}
			again, err := m.Referrers(t.Context(), mirrortest.App, image.Digest)
			if err != nil || again.Stale != listed.Stale {
				t.Errorf("again: stale %v, %v", again.Stale, err)
			}
			return [2]bool{tag.Stale, listed.Stale}
		}
		time.Sleep(time.Hour)
		if got := isStale(true); got != [2]bool{} {
			t.Errorf("offline: stale %v", got)
		}
		o.FailAll()
		if got := isStale(false); got != [2]bool{true, true} {
			t.Errorf("away: stale %v", got)
		}
		// What the upstream has confirmed since is still what was imported.
		m.Ledger.PutTag(mirrortest.App, "1", rec)
		if got, _ := m.Ledger.Tag(mirrortest.App, "1"); !got.Imported.At.Equal(imported.Imported.At) || got.Imported.From != "month.tar" {
			t.Errorf("after a check: %+v", got.Imported)
		}
		other := rec
		other.Descriptor.Digest = mirrortest.IndexAlgorithm.FromString("other")
		m.Ledger.PutTag(mirrortest.App, "1", other)
		if got, _ := m.Ledger.Tag(mirrortest.App, "1"); !got.Imported.At.IsZero() {
			t.Errorf("after it has moved: %+v", got.Imported)
		}
	})
}
