package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

var appRepo = metadata.Repository{Upstream: "hub.test", Name: referringRepo}

// addAttested has an index attach a BuildKit attestation to the image. No tag
// and no API lists it.
func (w *referringWorld) addAttested() {
	w.t.Helper()
	m := referrerNamed("attestation", w.subject)
	m.ArtifactType = referrers.AttestationType
	entry := w.attachAs(m)
	entry.ArtifactType = ""
	entry.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	entry.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": w.subject.Digest.String()}
	image := w.subject
	image.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	w.fakes[0].AddIndex(referringRepo, "attested", image, entry)
}

// pull pulls a manifest through the mirror.
func (w *referringWorld) pull(ref string) {
	w.t.Helper()
	if status, _, body := w.get("/v2/app/manifests/" + ref); status != http.StatusOK {
		w.t.Errorf("pull %s: %d %s", ref, status, body)
	}
}

// purge purges a manifest.
func (w *referringWorld) purge(ref string) {
	w.t.Helper()
	if _, err := w.mirror.pulling.Cache().Purge(w.t.Context(), retention.Target{Repository: appRepo, Ref: ref}, false); err != nil {
		w.t.Errorf("purge: %v", err)
	}
}

// keptReferrers are rows about what the mirror has seen or keeps.
func keptReferrers() []referringRow {
	down := upstreamtest.Status(503, "UNAVAILABLE")
	return []referringRow{
		{
			upstream: "is another entrepot, has kept a list of one for four minutes, and lists another one soon after", registries: one(withAPI...), chain: true,
			story: func(w *referringWorld) {
				w.attach("one")
				w.askParent()
				time.Sleep(4 * time.Minute)
				w.ask(byAPI)
				w.ask(byTag)
				w.attach("two")
				time.Sleep(90 * time.Second) // that is more than five, and less than the sum of two times
			},
		},
		{
			upstream: "is another entrepot, has said that there is none, and lists one half a minute later", registries: one(withAPI...), chain: true,
			story: func(w *referringWorld) {
				w.askParent()
				time.Sleep(25 * time.Second)
				w.ask(byAPI)
				w.ask(byTag)
				w.attach("one")
				time.Sleep(10 * time.Second)
			},
		},
		{
			upstream: "is another entrepot, lists another one than a moment ago, and the client says `no-cache`", registries: one(withAPI...), chain: true,
			story: func(w *referringWorld) {
				w.attach("one")
				w.askParent()
				w.ask(byAPI)
				w.ask(byTag)
				w.attach("two")
				time.Sleep(6 * time.Second)
			}, header: []string{"Cache-Control", "no-cache"},
		},
		{
			upstream: "had none for an image that is kept, and its API answers 503", registries: one(withAPI...), story: func(w *referringWorld) {
				w.pull("1")
				w.ask(byAPI)
				w.ask(byTag)
				time.Sleep(6 * time.Minute)
				w.always(theAPI, down)
			}, api: "stale, 0 of 0", tag: "404 MANIFEST_UNKNOWN, Warning: 110", laterTag: noTag,
		},
		{
			upstream: "had none for an image that is not kept, and its API answers 503", registries: one(withAPI...), story: func(w *referringWorld) {
				w.ask(byAPI)
				w.ask(byTag)
				time.Sleep(6 * time.Minute)
				w.always(theAPI, down)
			}, api: unknownReferrers, tag: noTagWarned, laterTag: noTag,
		},
		{
			upstream: "had none 6 s ago, and its API answers 503 to `Cache-Control: no-cache`", registries: one(withAPI...), story: func(w *referringWorld) {
				w.ask(byAPI)
				time.Sleep(6 * time.Second)
				w.always(theAPI, down)
			}, header: []string{"Cache-Control", "no-cache"}, api: "stale, 0 of 0", tag: "404 MANIFEST_UNKNOWN, Warning: 110", laterTag: noTag,
		},
		{
			upstream: "had one, and its API answers 503", registries: one(withAPI...), story: func(w *referringWorld) {
				w.attach("one")
				w.ask(byAPI)
				time.Sleep(6 * time.Minute)
				w.attach("two")
				w.always(theAPI, down)
			}, api: "stale, 1 of 2", tag: "stale, 1 of 2",
		},
		{
			upstream: "has gained the API, which lists one, and left another in the fallback tag", registries: one(withAPI...), story: func(w *referringWorld) {
				hidden := w.attach("one")
				w.list()
				w.attach("two")
				w.always(theAPI, withoutListed(hidden))
			}, laterAPI: "known, 2 of 2",
		},
		{
			upstream: "has no API, and an index attached an attestation to the image, whose manifest was purged", story: func(w *referringWorld) {
				w.addAttested()
				w.pull("attested")
				w.pull(w.subject.Digest.String())
				w.purge(w.subject.Digest.String())
			},
		},
		{
			upstream: "has no API, and an index attached an attestation to the image; then the records were damaged", story: func(w *referringWorld) {
				w.addAttested()
				w.pull("attested")
				w.pull(w.subject.Digest.String())
				w.loseRecords()
			},
		},
		{
			upstream: "lists by its API one that was pulled; then the records were damaged, and the API answers 503", registries: one(withAPI...), story: func(w *referringWorld) {
				w.pull(w.attach("one").Digest.String())
				w.loseRecords()
				w.always(theAPI, down)
			}, api: "stale, 1 of 1", tag: "stale, 1 of 1",
		},
		{
			upstream: "has no API, and none was known before an index that attaches an attestation was pulled", story: func(w *referringWorld) {
				w.ask(byAPI)
				w.addAttested()
				w.pull("attested")
			},
		},
		{
			upstream: "lists another one, and the record of the first is from next year, when the clock was wrong", registries: one(withAPI...), story: func(w *referringWorld) {
				w.attach("one")
				w.ask(byAPI)
				rec, _ := w.mirror.pulling.Ledger.Referrers(appRepo, w.subject.Digest)
				rec.At = time.Now().Add(365 * 24 * time.Hour)
				w.mirror.pulling.Ledger.PutReferrers(appRepo, w.subject.Digest, rec)
				w.attach("two")
			},
		},
		{
			upstream: "lists another one by its fallback tag, and what is kept of the tag is from next year", story: func(w *referringWorld) {
				w.attach("one")
				w.list()
				w.ask(byTag)
				if rec, ok := w.mirror.pulling.Ledger.Tag(appRepo, w.tag()); ok {
					rec.CheckedAt = time.Now().Add(365 * 24 * time.Hour)
					w.mirror.pulling.Ledger.PutTag(appRepo, w.tag(), rec)
				}
				w.attach("two")
				w.list()
				time.Sleep(6 * time.Minute)
			},
		},
		{
			upstream: "has deleted one that was pulled, and refuses `HEAD` by digest", registries: one(withAPI...), story: func(w *referringWorld) {
				d := w.attach("one")
				w.ask(byAPI)
				w.pull(d.Digest.String())
				w.fakes[0].Remove(referringRepo, d.Digest.String())
				w.hangs = nil
				w.always("HEAD manifests app "+short(d), upstreamtest.Status(405, "UNSUPPORTED"))
				time.Sleep(6 * time.Minute)
			}, tag: noTag, laterTag: noTag,
		},
		{
			upstream: "has 12,000, which are all known", registries: one(withAPI...), story: func(w *referringWorld) {
				for i := range 12000 {
					m := referrerNamed(fmt.Sprint("n", i), w.subject)
					w.hangs = append(w.hangs, ocispec.Descriptor{
						MediaType: m.MediaType, Digest: digest.FromString(fmt.Sprint(i)), Size: 500, ArtifactType: m.ArtifactType,
						Annotations: map[string]string{
							"org.opencontainers.image.created": time.Unix(int64(i), 0).UTC().Format(time.RFC3339),
							"org.example.text":                 strings.Repeat("x", 100),
						},
					})
				}
				w.mirror.pulling.Ledger.PutReferrers(appRepo, w.subject.Digest, metadata.Referrers{Manifests: referrers.Merge(w.hangs), At: time.Now()})
			}, tag: cutTag, laterTag: cutTag,
		},
	}
}

// cutTag is what fits into 4 MiB of a list of 12,000.
const cutTag = "known, 10586 of 12000, which says that there are more"

// withoutListed has the API leave one out.
func withoutListed(hidden ocispec.Descriptor) upstreamtest.Fault {
	return listedOtherwise(func(all []ocispec.Descriptor) (left []ocispec.Descriptor) {
		for _, d := range all {
			if d.Digest != hidden.Digest {
				left = append(left, d)
			}
		}
		return left
	})
}

// listedOtherwise changes what a list says of its entries.
func listedOtherwise(change func([]ocispec.Descriptor) []ocispec.Descriptor) upstreamtest.Fault {
	return upstreamtest.Rewritten(func(body []byte) []byte {
		var index ocispec.Index
		if err := json.Unmarshal(body, &index); err != nil {
			panic(err)
		}
		index.Manifests = change(index.Manifests)
		body, err := json.Marshal(index)
		if err != nil {
			panic(err)
		}
		return body
	})
}

// describedReferrers are rows about how what is listed is described.
func describedReferrers() []referringRow {
	another := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("another"), Size: 7}
	listing := func(more func(w *referringWorld) ocispec.Descriptor) func(w *referringWorld) {
		return func(w *referringWorld) {
			w.attach("one")
			d := more(w)
			w.always(theAPI, listedOtherwise(func(all []ocispec.Descriptor) []ocispec.Descriptor { return append(all, d) }))
		}
	}
	const unknownAlgorithm = "sha999:0123456789abcdef0123456789abcdef"
	unknown := func(api bool) func(w *referringWorld) {
		return func(w *referringWorld) {
			m := referrerNamed("one", w.subject)
			body, err := json.Marshal(m)
			if err != nil {
				panic(err)
			}
			d := w.fakes[0].AddManifestAs(referringRepo, unknownAlgorithm, m.MediaType, body)
			d.ArtifactType, d.Annotations = m.ArtifactType, m.Annotations
			w.hangs = append(w.hangs, d)
			if !api {
				w.list()
			}
		}
	}
	return []referringRow{
		{upstream: "lists by its API one whose subject is another image", registries: one(withAPI...), story: listing(func(w *referringWorld) ocispec.Descriptor {
			return w.add(referrerNamed("two", another))
		})},
		{upstream: "lists by its API the image itself", registries: one(withAPI...), story: listing(func(w *referringWorld) ocispec.Descriptor { return w.subject })},
		{upstream: "lists by its API one without a subject, an accessory, with a wrong size and type", registries: one(withAPI...), story: func(w *referringWorld) {
			w.attach("one")
			m := referrerNamed("accessory", w.subject)
			m.Subject = nil
			d := w.attachAs(m)
			d.Size, d.ArtifactType, d.Annotations = 7, "application/vnd.example.wrong", nil
			for _, fake := range w.fakes {
				fake.Always(theAPI, listedOtherwise(func(all []ocispec.Descriptor) []ocispec.Descriptor { return append(all, d) }))
			}
		}},
		{upstream: "sends what its API lists as `binary/octet-stream`", registries: one(withAPI...), story: func(w *referringWorld) {
			w.always("manifests app "+short(w.attach("one")), upstreamtest.Typed("binary/octet-stream"))
		}},
		{upstream: "sends what its fallback tag lists as `binary/octet-stream`", story: func(w *referringWorld) {
			w.always("manifests app "+short(w.attach("one")), upstreamtest.Typed("binary/octet-stream"))
			w.list()
		}},
		{
			upstream: "lists by its API one by an algorithm that nobody knows", registries: one(withAPI...), story: unknown(true),
			api: unknownReferrers, tag: noTagWarned, laterAPI: unknownReferrers, laterTag: noTagWarned,
		},
		{
			upstream: "lists by its fallback tag one by an algorithm that nobody knows", story: unknown(false),
			api: unknownReferrers, tag: "502 UNAVAILABLE", laterAPI: unknownReferrers, laterTag: "502 UNAVAILABLE",
		},
		{upstream: "lists by its API 600 with the configuration's type in place of their own", registries: one(withAPI...), story: func(w *referringWorld) {
			for i := range 600 {
				w.attach(fmt.Sprint("n", i))
			}
			w.always(theAPI, asTheConfig())
		}, api: "stale, 600 of 600", tag: "stale, 600 of 600", later: 10 * time.Minute, most: 600},
		{upstream: "lists by its API 600 with the configuration's type, after half an hour", registries: one(withAPI...), story: func(w *referringWorld) {
			for i := range 600 {
				w.attach(fmt.Sprint("n", i))
			}
			w.always(theAPI, asTheConfig())
			w.ask(byAPI)
			time.Sleep(30 * time.Minute)
			w.ask(byAPI)
			time.Sleep(time.Minute)
		}},
	}
}

// asTheConfig has a list claim the configuration's type for each, as
// go-containerregistry's registry does.
func asTheConfig() upstreamtest.Fault {
	return listedOtherwise(func(all []ocispec.Descriptor) []ocispec.Descriptor {
		for i := range all {
			all[i].ArtifactType, all[i].Annotations = ocispec.MediaTypeEmptyJSON, nil
		}
		return all
	})
}

// costlyReferrers are rows about what must not end an answer, or cost much.
func costlyReferrers() []referringRow {
	entry := func(change func(entry map[string]any)) upstreamtest.Fault {
		return upstreamtest.Rewritten(func(body []byte) []byte {
			var index map[string]any
			if err := json.Unmarshal(body, &index); err != nil {
				panic(err)
			}
			if all, _ := index["manifests"].([]any); len(all) > 0 {
				first, _ := all[0].(map[string]any)
				change(first)
			}
			body, err := json.Marshal(index)
			if err != nil {
				panic(err)
			}
			return body
		})
	}
	both := func(f upstreamtest.Fault) func(w *referringWorld) {
		return func(w *referringWorld) {
			w.attach("one")
			w.attach("two")
			w.always(theAPI, f)
		}
	}
	limited := func(f upstreamtest.Fault) func(w *referringWorld) {
		return func(w *referringWorld) {
			w.attach("one")
			w.always(theAPI, f)
			for range 3 {
				w.ask(byAPI)
			}
			w.pull("1")
			w.fakes[0].AddImage("another", "1", []byte("layer"))
			if status, _, body := w.get("/v2/another/manifests/1"); status != http.StatusOK {
				w.t.Errorf("a pull of another image: %d %s", status, body)
			}
		}
	}
	image := func(w *referringWorld) {
		w.attach("one")
		w.fakes[0].AddImage(referringRepo, w.tag(), []byte("somebody's own"))
	}
	return []referringRow{
		{upstream: "lists by its API an entry with an annotation that is a number", registries: one(withAPI...), story: both(entry(func(e map[string]any) { e["annotations"] = map[string]any{"n": 7} }))},
		{upstream: "lists by its API an entry without a media type", registries: one(withAPI...), story: both(entry(func(e map[string]any) { delete(e, "mediaType") }))},
		{upstream: "lists by its API one of more than 8 MiB", registries: one(withAPI...), story: func(w *referringWorld) {
			w.attach("one")
			m := referrerNamed("large", w.subject)
			m.Annotations["org.example.text"] = strings.Repeat("x", 9<<20)
			d := w.attachAs(m)
			d.Annotations = nil
			w.hangs[1] = d
			w.always(theAPI, listedOtherwise(func(all []ocispec.Descriptor) []ocispec.Descriptor {
				for i := range all {
					if all[i].Digest == d.Digest {
						all[i].Annotations = nil
					}
				}
				return all
			}))
		}, api: "stale, 2 of 2", tag: "stale, 2 of 2", later: time.Second, laterAPI: "stale, 2 of 2", laterTag: "stale, 2 of 2"},
		{upstream: "answers by its API, and the fallback tag is somebody's own image", registries: one(withAPI...), story: image, tag: ownImage, laterTag: ownImage},
		{upstream: "has no API, and the fallback tag is somebody's own image", story: image, api: unknownReferrers, tag: ownImage, laterAPI: unknownReferrers, laterTag: ownImage},
		{upstream: "answers by its API, and refuses the fallback tag with 400 for its rules on tags", registries: one(withAPI...), story: func(w *referringWorld) {
			w.attach("one")
			w.always(w.theTag(), upstreamtest.Status(400, "TAG_INVALID"))
		}},
		{upstream: "answers the API with 429 for an hour", registries: one(withAPI...), story: limited(upstreamtest.RateLimited(3600)), api: "429 TOOMANYREQUESTS", tag: noTagWarned, later: 62 * time.Minute},
		{upstream: "answers the API with 429 for an hour, and the fallback tag with 503", registries: one(withAPI...), story: func(w *referringWorld) {
			w.attach("one")
			w.always(theAPI, upstreamtest.RateLimited(3600))
			w.always(w.theTag(), upstreamtest.Status(503, "UNAVAILABLE"))
		}, api: "429 TOOMANYREQUESTS", tag: "502 UNAVAILABLE", later: 62 * time.Minute},
		{upstream: "answers the API with 500", registries: one(withAPI...), story: limited(upstreamtest.Status(500, "UNKNOWN")), api: unknownReferrers, tag: noTagWarned},
		{upstream: "lists 3,000 by its fallback tag", story: func(w *referringWorld) {
			for i := range 3000 {
				w.attach(fmt.Sprint("n", i))
			}
			w.list()
		}, api: "stale, 3000 of 3000", tag: "stale, 3000 of 3000", most: 600, later: 40 * time.Minute},
	}
}
