package pull_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream"
)

var (
	private = pull.Repository{Upstream: "hub", Name: "private"}
	evil    = pull.Repository{Upstream: "hub", Name: "evil"}
)

func credentialed(opts *mirror.Options) { opts.Upstreams[0].Credentialed = true }

// name puts a manifest into a repository that names a blob as its only layer,
// which the repository need not have.
func name(t *testing.T, o *mirrortest.Origin, repo, tag string, layer pull.Descriptor) pull.Descriptor {
	t.Helper()
	config := o.Put(repo, ocispec.MediaTypeImageConfig, []byte(`{"of":"`+repo+`"}`))
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []pull.Descriptor{layer},
	})
	if err != nil {
		t.Fatal(err)
	}
	return o.Put(repo, ocispec.MediaTypeImageManifest, raw, tag)
}

// Being named is not being held: some registries take a manifest without looking
// for what it names, and then it names what is private to another repository.
func TestWhatWasFetchedWithCredentialsIsAskedForBeforeAnotherRepositoryGetsIt(t *testing.T) {
	secret := mirrortest.Bytes(1, 300<<10)
	for when, order := range map[string][]string{
		"named after it was fetched":  {"fetch", "name"},
		"named before it was fetched": {"name", "fetch"},
	} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				_, layer := o.Image("private", "1", secret)
				name(t, o, "evil", "1", layer)
				m := mirrortest.New(t, o, credentialed)
				for _, step := range order {
					if step == "fetch" {
						m.PullImage(t, private, "1")
						mirrortest.Wait()
					} else if _, err := m.Manifest(t.Context(), evil, "1"); err != nil {
						t.Fatal(err)
					}
				}
				d := mirrortest.Short(layer.Digest.String())
				o.Transcript()
				// Never asked, and not to be asked.
				o.Fail("HEAD blob evil "+d, upstream.ErrRefused, upstream.ErrRefused)
				if got, err := m.Fetch(evil, layer.Digest); !errors.Is(err, upstream.ErrUnavailable) || len(got) > 0 {
					t.Errorf("while the upstream is away: %d bytes, %v", len(got), err)
				}
				if desc, _, err := m.ResolveBlob(t.Context(), evil, layer.Digest); !errors.Is(err, upstream.ErrUnavailable) {
					t.Errorf("HEAD, while the upstream is away: %+v, %v", desc, err)
				}
				o.ClearFailures()
				mirrortest.WantTranscript(t, o, "HEAD blob evil "+d, "HEAD blob evil "+d)
				// It does not answer. What the manifest says is no answer.
				release := o.Hold("HEAD blob evil " + d)
				if desc, _, err := m.ResolveBlob(t.Context(), evil, layer.Digest); err == nil {
					t.Errorf("HEAD, while the upstream is silent: %+v", desc)
				}
				release()
				mirrortest.Wait()
				// The upstream does not have it there.
				for range 2 {
					if got, err := m.Fetch(evil, layer.Digest); !errors.Is(err, upstream.ErrNotFound) || len(got) > 0 {
						t.Errorf("%d bytes, %v", len(got), err)
					}
					if got, err := readPart(t, m, evil, layer.Digest, pull.Span{From: 10, To: 20}); !errors.Is(err, upstream.ErrNotFound) || len(got) > 0 {
						t.Errorf("a range: %d bytes, %v", len(got), err)
					}
					if desc, _, err := m.ResolveBlob(t.Context(), evil, layer.Digest); !errors.Is(err, upstream.ErrNotFound) {
						t.Errorf("HEAD: %+v, %v", desc, err)
					}
				}
				mirrortest.WantTranscript(t, o, "HEAD blob evil "+d)
				// The repository that it was fetched from is not asked about.
				if got, err := m.Fetch(private, layer.Digest); err != nil || !bytes.Equal(got, secret) {
					t.Errorf("its own repository: %d bytes, %v", len(got), err)
				}
				mirrortest.WantTranscript(t, o)
			})
		})
	}
}

// The answer is remembered, also by the next process, which can't ask.
func TestTheUpstreamIsAskedOnceWhetherARepositoryHasABlob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		layerBytes := mirrortest.Bytes(1, 300<<10)
		_, layer := o.Image("private", "1", layerBytes)
		o.Image("app", "1", layerBytes)
		m := mirrortest.New(t, o, credentialed)
		m.PullImage(t, private, "1")
		mirrortest.Wait()
		o.Transcript()
		m.PullImage(t, mirrortest.App, "1")
		mirrortest.Wait()
		d := mirrortest.Short(layer.Digest.String())
		// Config and layer are here already: each costs one question.
		heads := 0
		for _, line := range o.Transcript() {
			if len(line) > 9 && line[:9] == "HEAD blob" {
				heads++
			}
			if line == "GET blob app "+d {
				t.Error("it was downloaded again")
			}
		}
		if heads != 2 {
			t.Errorf("%d questions, want 2", heads)
		}
		again := mirrortest.New(t, o, func(opts *mirror.Options) {
			credentialed(opts)
			opts.Blobs, opts.Records = m.Blobs, m.Records
		})
		o.FailAll()
		again.PullImage(t, mirrortest.App, "1")
		again.PullImage(t, private, "1")
		if asked := mirrortest.Count(o.Transcript(), "HEAD blob app "+d); asked != 0 {
			t.Errorf("asked %d times again", asked)
		}
	})
}

// What anyone can read costs no question, and neither does what was fetched for
// the same repository.
func TestAColdPullAsksNoMoreThanItNeeds(t *testing.T) {
	for _, withCredentials := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := mirrortest.NewOrigin()
			shared := mirrortest.Bytes(1, 300<<10)
			first, layer := o.Image("app", "1", shared)
			m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Upstreams[0].Credentialed = withCredentials })
			config := m.PullImage(t, mirrortest.App, "1")
			mirrortest.Wait()
			if config != first.Digest {
				t.Fatal(config)
			}
			var rec ocispec.Manifest
			raw, _ := o.Get("app", first.Digest.String())
			if err := json.Unmarshal(raw.Body, &rec); err != nil {
				t.Fatal(err)
			}
			mirrortest.WantTranscript(t, o, "GET manifest app 1",
				"GET blob app "+mirrortest.Short(rec.Config.Digest.String()), "GET blob app "+mirrortest.Short(layer.Digest.String()))
			m.PullImage(t, mirrortest.App, "1")
			mirrortest.WantTranscript(t, o)
			if withCredentials {
				return
			}
			second, _ := o.Image("other", "1", shared)
			m.PullImage(t, pull.Repository{Upstream: "hub", Name: "other"}, "1")
			mirrortest.Wait()
			if second.Digest != first.Digest {
				t.Fatal("they are two images")
			}
			mirrortest.WantTranscript(t, o, "GET manifest other 1")
		})
	}
}

// Only config and layers of images are verified when a manifest is pushed.
func TestWhatRegistriesDoNotVerifyGrantsNothing(t *testing.T) {
	for kind, manifest := range map[string]string{
		"an index entry of an unknown type": `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[{"mediaType":"application/vnd.example","digest":"%s","size":307200}]}`,
		"a blob of an artifact manifest":    `{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[{"mediaType":"a/b","digest":"%s","size":307200}]}`,
		"a layer of an unknown kind":        `{"schemaVersion":2,"mediaType":"application/vnd.example+json","layers":[{"mediaType":"a/b","digest":"%s","size":307200}]}`,
		"a subject":                         `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{"mediaType":"` + ocispec.MediaTypeEmptyJSON + `","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[],"subject":{"mediaType":"a/b","digest":"%s","size":307200}}`,
		"a layer with URLs":                 `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","layers":[{"mediaType":"a/b","digest":"%s","size":307200,"urls":["https://example.com"]}]}`,
	} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				layer := o.Put("private", "layer", mirrortest.Bytes(1, 300<<10))
				var typed struct{ MediaType string }
				raw := fmt.Appendf(nil, manifest, layer.Digest)
				if err := json.Unmarshal(raw, &typed); err != nil {
					t.Fatal(err)
				}
				o.Put("evil", typed.MediaType, raw, "1")
				m := mirrortest.New(t, o, nil) // without credentials, even
				if err := m.Read(t.Context(), private, layer.Digest); err != nil {
					t.Fatal(err)
				}
				if _, err := m.Manifest(t.Context(), evil, "1"); err != nil {
					t.Fatal(err)
				}
				mirrortest.Wait()
				o.Transcript()
				if got, err := m.Fetch(evil, layer.Digest); !errors.Is(err, upstream.ErrNotFound) || len(got) > 0 {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				mirrortest.WantTranscript(t, o, "HEAD blob evil "+mirrortest.Short(layer.Digest.String()))
			})
		})
	}
}

// A manifest that can be read in two ways is nobody's proof. It passes through.
func TestAManifestThatCanBeReadInTwoWaysPassesThrough(t *testing.T) {
	own := mirrortest.Bytes(2, 1000)
	for _, layers := range []string{
		`"layers":[%[1]s],"Layers":[%[2]s]`, `"Layers":[%[2]s],"layers":[%[1]s]`, `"layers":[%[1]s],"layers":[%[2]s]`,
		`"layers":[%[1]s],"layerſ":[%[2]s]`, `"layers":[%[1]s],"\u004cayers":[%[2]s]`,
		`"layers":[{"mediaType":"a/b","digest":"%[3]s","Digest":"%[4]s","size":1000}]`, `"config":%[1]s,"CONFIG":%[2]s,"layers":[]`,
	} {
		synctest.Test(t, func(t *testing.T) {
			o := mirrortest.NewOrigin()
			layer, mine := o.Put("private", "layer", mirrortest.Bytes(1, 300<<10)), o.Put("evil", "layer", own)
			entry := func(d pull.Descriptor) string {
				return fmt.Sprintf(`{"mediaType":"a/b","digest":"%s","size":%d}`, d.Digest, d.Size)
			}
			raw := []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `",` + fmt.Sprintf(layers+"%.0[1]s%.0[2]s%.0[3]s%.0[4]s", entry(layer), entry(mine), layer.Digest, mine.Digest) + `}`)
			manifest := o.Put("evil", ocispec.MediaTypeImageManifest, raw, "1")
			m := mirrortest.New(t, o, nil)
			if err := m.Read(t.Context(), private, layer.Digest); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				for _, ref := range []string{"1", manifest.Digest.String()} {
					got, err := m.Manifest(t.Context(), evil, ref)
					if err != nil || !bytes.Equal(got.Bytes, raw) || got.Descriptor.MediaType != ocispec.MediaTypeImageManifest || got.Descriptor.Digest != manifest.Digest {
						t.Errorf("%s: %+v, %v", ref, got.Descriptor, err)
					}
				}
			}
			mirrortest.Wait()
			if m.HasManifest(evil, manifest.Digest) || m.HasContent(manifest.Digest) {
				t.Errorf("%s is cached", raw)
			}
			if _, known := m.Ledger.Tag(evil, "1"); known {
				t.Error("the tag is on record")
			}
			o.Transcript()
			if got, err := m.Fetch(evil, layer.Digest); !errors.Is(err, upstream.ErrNotFound) || len(got) > 0 {
				t.Errorf("%s: %d bytes, %v", raw, len(got), err)
			}
			mirrortest.WantTranscript(t, o, "HEAD blob evil "+mirrortest.Short(layer.Digest.String()))
		})
	}
}

// Whoever joins the download of another repository, or reads what one has left,
// is asked about as well.
func TestADownloadOfAnotherRepositoryIsJoinedOnlyByWhoHasTheBlob(t *testing.T) {
	const size = 8 << 20
	content := mirrortest.Bytes(1, size)
	for when, kept := range map[string]bool{"while it is under way": false, "when its pieces are kept": true} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				layer := o.Put("private", "layer", content)
				name(t, o, "evil", "1", layer)
				m := mirrortest.New(t, o, credentialed)
				if _, err := m.Manifest(t.Context(), evil, "1"); err != nil {
					t.Fatal(err)
				}
				d := mirrortest.Short(layer.Digest.String())
				part := pull.Span{From: 1000, To: 2000}
				if kept {
					if got, err := readPart(t, m, private, layer.Digest, part); err != nil || len(got) != 1000 {
						t.Fatalf("%d bytes, %v", len(got), err)
					}
					time.Sleep(time.Minute)
					mirrortest.Wait()
					// What a draft is from is known even if nothing else is.
					m.Records.Delete("private", layer.Digest.String())
				} else {
					release := o.Hold("GET blob private " + d)
					done := make(chan error, 1)
					go func() { done <- m.Read(t.Context(), private, layer.Digest) }()
					mirrortest.Wait()
					defer func() {
						if err := <-done; err != nil {
							t.Error(err)
						}
					}()
					defer release()
					// It has not answered yet, so that nothing is on record.
					time.AfterFunc(time.Second, release)
				}
				o.Transcript()
				if got, err := readPart(t, m, evil, layer.Digest, part); !errors.Is(err, upstream.ErrNotFound) || len(got) > 0 {
					t.Errorf("a range: %d bytes, %v", len(got), err)
				}
				if got, err := m.Fetch(evil, layer.Digest); !errors.Is(err, upstream.ErrNotFound) || len(got) > 0 {
					t.Errorf("all of it: %d bytes, %v", len(got), err)
				}
				mirrortest.Wait()
				if n := mirrortest.Count(o.Transcript(), "HEAD blob evil "+d); n != 1 {
					t.Errorf("asked %d times", n)
				}
			})
		})
	}
}

// A manifest is content, too: a layer that is another repository's manifest is
// asked about.
func TestAManifestOfAnotherRepositoryIsNoLayer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		manifest, _ := o.Image("private", "1", mirrortest.Bytes(1, 1000))
		name(t, o, "evil", "1", manifest)
		m := mirrortest.New(t, o, credentialed)
		m.PullImage(t, private, "1")
		if _, err := m.Manifest(t.Context(), evil, "1"); err != nil {
			t.Fatal(err)
		}
		if got, err := m.Fetch(evil, manifest.Digest); !errors.Is(err, upstream.ErrNotFound) || len(got) > 0 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if got, err := m.Manifest(t.Context(), evil, manifest.Digest.String()); !errors.Is(err, upstream.ErrNotFound) {
			t.Errorf("as a manifest: %d bytes, %v", len(got.Bytes), err)
		}
	})
}

// A download that was joined before it was anybody's secret ends, and the next
// one is another repository's, or has cached the blob already.
func TestWhoJoinsTheNextDownloadIsAskedAbout(t *testing.T) {
	for when, cached := range map[string]bool{"while it is under way": false, "when it is cached": true} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, quay := mirrortest.NewOrigin(), mirrortest.NewOrigin()
				layer := o.Put("private", "layer", mirrortest.Bytes(1, 300<<10))
				quay.Put("app", "layer", mirrortest.Bytes(1, 300<<10))
				name(t, quay, "evil", "1", layer)
				ends := make(chan struct{})
				quay.Bodies = func(string, pull.Digest, int64, []byte) io.ReadCloser {
					return io.NopCloser(io.MultiReader(blocked(ends), mirrortest.Failing{Err: upstream.ErrInvalidResponse}))
				}
				m := mirrortest.New(t, o, func(opts *mirror.Options) {
					credentialed(opts)
					opts.Upstreams = append(opts.Upstreams, pull.Upstream{Name: "quay", Registry: quay})
				})
				// The first download is of its own upstream, and of public content; the
				// next one is not.
				evil := pull.Repository{Upstream: "quay", Name: "evil"}
				if _, err := m.Manifest(t.Context(), evil, "1"); err != nil {
					t.Fatal(err)
				}
				stranger := make(chan error, 1)
				go func() {
					stranger <- m.Read(t.Context(), pull.Repository{Upstream: "quay", Name: "app"}, layer.Digest)
				}()
				mirrortest.Wait()
				half := pull.Span{To: 150 << 10}
				b, err := m.Blob(t.Context(), evil, layer.Digest, pull.Want{Parts: func(int64) []pull.Span {
					return []pull.Span{half, {From: half.To, To: 300 << 10}} // the whole would be asked for by itself
				}})
				close(ends)
				if err := <-stranger; err == nil {
					t.Error("the first download has not failed")
				}
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				mirrortest.Wait()
				reads := make(chan error, 1)
				release := o.Hold("GET blob private " + mirrortest.Short(layer.Digest.String()))
				if cached {
					release()
				}
				go func() { reads <- m.Read(t.Context(), private, layer.Digest) }()
				mirrortest.Wait()
				time.AfterFunc(time.Second, release)
				var got bytes.Buffer
				if n, err := b.WriteRange(t.Context(), &got, 0, half.To); err == nil || n > 0 || got.Len() > 0 {
					t.Errorf("%d bytes, %v", n, err)
				}
				if err := <-reads; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// blocked has no bytes, and ends when it is told.
type blocked chan struct{}

func (b blocked) Read([]byte) (int, error) {
	<-b
	return 0, io.EOF
}

// flushes notes when the records are made durable.
type flushes struct {
	cache.Records
	flushed func()
}

func (f flushes) Flush(ctx context.Context) error {
	f.flushed()
	return f.Records.Flush(ctx)
}

// Otherwise a crash in between would leave content that anyone may have.
func TestThatABlobMayBePrivateIsDurableBeforeItIsPublished(t *testing.T) {
	for _, withCredentials := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := mirrortest.NewOrigin()
			layer := o.Put("app", "layer", mirrortest.Bytes(1, 300<<10))
			before := 0
			m := mirrortest.New(t, o, func(opts *mirror.Options) {
				opts.Upstreams[0].Credentialed = withCredentials
				blobs, records := opts.Blobs, opts.Records
				opts.Records = flushes{records, func() {
					_, published := blobs.Stat(context.Background(), layer.Digest)
					if _, err := records.Get("private", layer.Digest.String()); err == nil && published != nil {
						before++
					}
				}}
			})
			if err := m.Read(t.Context(), mirrortest.App, layer.Digest); err != nil {
				t.Fatal(err)
			}
			mirrortest.Wait()
			if want := map[bool]int{true: 1}[withCredentials]; before != want || !m.HasContent(layer.Digest) {
				t.Errorf("with credentials %v: it was made durable %d times", withCredentials, before)
			}
		})
	}
}

func TestWhatIsPurgedLeavesNoRecordOfWhoseItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.Image("app", "1", mirrortest.Bytes(1, 1000))
		m := mirrortest.New(t, o, credentialed)
		m.PullImage(t, mirrortest.App, "1")
		mirrortest.Wait()
		if held, private := m.CountRecords(t, "held"), m.CountRecords(t, "private"); held != 2 || private != 3 {
			t.Errorf("%d held and %d private", held, private)
		}
		if _, err := m.Purge(t.Context(), retention.Target{Repository: mirrortest.App, Ref: "1"}, false); err != nil {
			t.Fatal(err)
		}
		for _, bucket := range []cache.Bucket{"held", "private", "member"} {
			if n := m.CountRecords(t, bucket); n != 0 {
				t.Errorf("%d records of %s are left", n, bucket)
			}
		}
	})
}
