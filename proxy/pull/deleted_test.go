package pull_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream"
)

// warningOf is the warning about a tag that is gone since then.
func warningOf(since time.Time) string {
	return `299 - "the upstream has deleted this tag: gone since ` + since.UTC().Format(time.RFC3339) + `"`
}

func serveDeleted(opts *mirror.Options) { opts.Upstreams[0].ServeDeleted = true }

func mustPull(t *testing.T, m mirrortest.Mirror, ref string) pull.Manifest {
	t.Helper()
	got, err := m.Manifest(t.Context(), mirrortest.App, ref)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// wantGone checks an answer about a tag that is gone since then.
func wantGone(t *testing.T, got pull.Manifest, want pull.Descriptor, outcome pull.Outcome, since time.Time) {
	t.Helper()
	if got.Descriptor.Digest != want.Digest || got.Outcome != outcome || !slices.Equal(got.Warnings, []string{warningOf(since)}) {
		t.Errorf("%s, %s, %q; want %s, %s, gone since %s", got.Descriptor.Digest, got.Outcome, got.Warnings, want.Digest, outcome, since)
	}
}

func TestADeletedTagIsServedIfTheConfigurationOrAPinSaysSo(t *testing.T) {
	digestPin := func(o *mirrortest.Origin) string { return digestOf(o, "1").String() }
	for name, c := range map[string]struct {
		change func(*mirror.Options)
		pin    func(*mirrortest.Origin) string // what a command pins
		tag    string                          // else "1"
		err    error                           // of the whole repository, where it is set
		served bool
	}{
		"forgotten by default":                     {},
		"served by configuration":                  {change: serveDeleted, served: true},
		"served when the whole repository is gone": {change: serveDeleted, served: true, err: upstream.ErrNameUnknown},
		"pinned by a command":                      {pin: func(*mirrortest.Origin) string { return "1" }, served: true},
		"pinned by a command, by its digest":       {pin: digestPin, served: true},
		"pinned by configuration": {served: true, change: func(opts *mirror.Options) {
			opts.Pins.Matches = func(repo pull.Repository, ref string) bool { return repo == mirrortest.App && ref == "1" }
		}},
		"another tag is pinned": {change: func(opts *mirror.Options) {
			opts.Pins.Matches = func(_ pull.Repository, ref string) bool { return ref == "2" }
		}},
		"a tag that carries referrers": {change: serveDeleted, tag: "sha256-" + strings.Repeat("a", 64)},
		"a tag that carries a signature, pinned with everything": {tag: "sha256-" + strings.Repeat("a", 64) + ".sig", change: func(opts *mirror.Options) {
			serveDeleted(opts)
			opts.Pins.Matches = func(pull.Repository, string) bool { return true }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				if c.tag == "" {
					c.tag = "1"
				}
				manifest, _ := o.Image("app", c.tag, mirrortest.Bytes(1, 50))
				m := mirrortest.New(t, o, c.change)
				mustPull(t, m, c.tag)
				if c.pin != nil {
					if _, err := m.Pin(t.Context(), pull.Reference{Repository: mirrortest.App, Ref: c.pin(o)}); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Minute)
				if c.tag != "1" {
					time.Sleep(m.Rules.ReferrersTTL) // those that carry referrers follow it alone
				}
				synctest.Wait()
				o.Transcript()
				o.Remove("app", c.tag)
				if c.err != nil {
					o.Fail("*", c.err)
				}
				since := time.Now()
				got, err := m.Manifest(t.Context(), mirrortest.App, c.tag)
				if !c.served {
					if !errors.Is(err, upstream.ErrNotFound) {
						t.Errorf("%s, %v", got.Descriptor.Digest, err)
					}
					if _, kept := m.Ledger.Tag(mirrortest.App, c.tag); kept {
						t.Error("it is on record")
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				wantGone(t, got, manifest, pull.Deleted, since)
			})
		})
	}
}

func TestADeletedTagIsCheckedLikeAnyTagAndSaysSinceWhenItIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		manifest, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, serveDeleted)
		mustPull(t, m, "1")
		time.Sleep(2 * time.Minute)
		o.Remove("app", "1")
		o.Transcript()
		since := time.Now()
		for range 3 { // once per tag_ttl, however often clients ask
			for range 5 {
				wantGone(t, mustPull(t, m, "1"), manifest, pull.Deleted, since)
			}
			mirrortest.WantTranscript(t, o, "HEAD manifest app 1", "GET manifest app 1")
			time.Sleep(time.Minute)
		}
		// A tag that cannot be checked is stale as well.
		o.Fail("*", upstream.ErrUnavailable)
		got := mustPull(t, m, "1")
		if wantGone(t, got, manifest, pull.Stale, since); !got.Stale {
			t.Error("not stale")
		}
		// By digest, nothing has changed.
		if got := mustPull(t, m, manifest.Digest.String()); got.Stale || len(got.Warnings) > 0 {
			t.Errorf("by digest: %+v", got)
		}
		list, err := m.Inventory(t.Context())
		if err != nil || len(list.Images) != 1 || !list.Images[0].GoneSince.Equal(since.Truncate(time.Second)) {
			t.Errorf("the inventory: %+v, %v", list.Images, err)
		}
	})
}

func TestTheTimeOfADeletionSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		manifest, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, serveDeleted)
		mustPull(t, m, "1")
		time.Sleep(2 * time.Minute)
		o.Remove("app", "1")
		since := time.Now()
		mustPull(t, m, "1")
		again := func(change func(*mirror.Options)) mirrortest.Mirror {
			return mirrortest.New(t, o, func(opts *mirror.Options) {
				opts.Blobs, opts.Records = m.Blobs, m.Records
				change(opts)
			})
		}
		o.Transcript()
		wantGone(t, mustPull(t, again(serveDeleted), "1"), manifest, pull.Deleted, since)
		mirrortest.WantTranscript(t, o) // it is fresh
		got := mustPull(t, again(func(opts *mirror.Options) { opts.Rules.Offline = true }), "1")
		wantGone(t, got, manifest, pull.Stale, since)
		time.Sleep(24 * time.Hour)
		wantGone(t, mustPull(t, again(serveDeleted), "1"), manifest, pull.Deleted, since)
		o.Transcript()
		// If the configuration no longer asks for it, the tag is gone at once.
		if _, err := again(func(*mirror.Options) {}).Manifest(t.Context(), mirrortest.App, "1"); !errors.Is(err, upstream.ErrNotFound) {
			t.Errorf("to be forgotten: %v", err)
		}
		mirrortest.WantTranscript(t, o, "HEAD manifest app 1", "GET manifest app 1")
	})
}

func TestADeletedTagThatComesBackIsServedNormally(t *testing.T) {
	for name, back := range map[string]func(*mirrortest.Origin) pull.Descriptor{
		"as it was": func(o *mirrortest.Origin) pull.Descriptor {
			d, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
			return d
		},
		"as another, where HEADs tell nothing": func(o *mirrortest.Origin) pull.Descriptor {
			o.NoHEAD = true
			d, _ := o.Image("app", "1", mirrortest.Bytes(2, 50))
			return d
		},
		"as another": func(o *mirrortest.Origin) pull.Descriptor {
			d, _ := o.Image("app", "1", mirrortest.Bytes(2, 50))
			return d
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				o.Image("app", "1", mirrortest.Bytes(1, 50))
				m := mirrortest.New(t, o, serveDeleted)
				mustPull(t, m, "1")
				time.Sleep(2 * time.Minute)
				o.Remove("app", "1")
				mustPull(t, m, "1")
				time.Sleep(2 * time.Minute)
				want := back(o)
				restarted := mirrortest.New(t, o, func(opts *mirror.Options) {
					opts.Blobs, opts.Records = m.Blobs, m.Records
					serveDeleted(opts)
				})
				for range 2 {
					if got := mustPull(t, restarted, "1"); got.Descriptor.Digest != want.Digest || len(got.Warnings) > 0 || got.Outcome == pull.Deleted {
						t.Errorf("%s, %s, %q", got.Descriptor.Digest, got.Outcome, got.Warnings)
					}
				}
				// It was deleted again, so the time is new.
				time.Sleep(2 * time.Minute)
				o.NoHEAD = false
				o.Remove("app", "1")
				wantGone(t, mustPull(t, restarted, "1"), want, pull.Deleted, time.Now())
			})
		})
	}
}

func TestAPurgedTagIsGoneEvenIfDeletedTagsAreServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, serveDeleted)
		mustPull(t, m, "1")
		time.Sleep(2 * time.Minute)
		o.Remove("app", "1")
		mustPull(t, m, "1")
		// A check that is under way does not restore it.
		time.Sleep(2 * time.Minute)
		release := o.Hold("GET manifest app 1")
		mustPull(t, m, "1") // stale, after max_wait
		if _, err := m.Purge(context.Background(), retention.Target{Repository: mirrortest.App, Ref: "1"}, false); err != nil {
			t.Fatal(err)
		}
		release()
		synctest.Wait()
		if got, err := m.Manifest(t.Context(), mirrortest.App, "1"); !errors.Is(err, upstream.ErrNotFound) {
			t.Errorf("%s, %v", got.Descriptor.Digest, err)
		}
	})
}

func TestARecordedTimeInTheFutureIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		manifest, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, serveDeleted)
		mustPull(t, m, "1")
		o.Transcript()
		key := metadata.Key(mirrortest.App, "1")
		restarted := func(checked time.Time) mirrortest.Mirror {
			m.Records.Put("checked", key, binary.BigEndian.AppendUint64(nil, uint64(checked.UnixNano())))
			return mirrortest.New(t, o, func(opts *mirror.Options) {
				opts.Blobs, opts.Records = m.Blobs, m.Records
				serveDeleted(opts)
			})
		}
		for ahead, asked := range map[time.Duration][]string{
			-time.Second: nil, 0: nil, time.Second: {"HEAD manifest app 1"}, 100 * 365 * 24 * time.Hour: {"HEAD manifest app 1"},
		} {
			r := restarted(time.Now().Add(ahead))
			for range 2 { // the check makes the time right
				mustPull(t, r, "1")
			}
			mirrortest.WantTranscript(t, o, asked...)
		}
		// The same applies to the time since when the tag is gone.
		m.Records.Put("tag", key, fmt.Appendf(nil, `{"Descriptor":{"mediaType":%q,"digest":%q,"size":%d},"GoneSince":"2999-01-01T00:00:00Z"}`,
			manifest.MediaType, manifest.Digest, manifest.Size))
		o.Remove("app", "1")
		o.Fail("HEAD manifest app 1", upstream.ErrUnavailable)
		r := restarted(time.Time{})
		wantGone(t, mustPull(t, r, "1"), manifest, pull.Stale, time.Now())
		since := time.Now()
		wantGone(t, mustPull(t, r, "1"), manifest, pull.Deleted, since)
		time.Sleep(time.Hour)
		wantGone(t, mustPull(t, restarted(time.Time{}), "1"), manifest, pull.Deleted, since)
	})
}

func TestADroppedOrMovedTagIsNotMarkedGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, nil)
		mustPull(t, m, "1")
		was, _ := m.Ledger.Tag(mirrortest.App, "1")
		moved := was
		moved.Descriptor.Digest = mirrortest.IndexAlgorithm.FromString("moved")
		for name, change := range map[string]func(){
			"moved":   func() { m.Ledger.PutTag(mirrortest.App, "1", moved) },
			"dropped": func() { m.Ledger.DropTag(mirrortest.App, "1") },
		} {
			change()
			before, onRecord := m.Ledger.Tag(mirrortest.App, "1")
			if rec, ok := m.Ledger.MarkGone(mirrortest.App, "1", was); ok {
				t.Errorf("%s: marked %+v", name, rec)
			}
			if after, still := m.Ledger.Tag(mirrortest.App, "1"); still != onRecord || !reflect.DeepEqual(after, before) {
				t.Errorf("%s: %+v is now %+v", name, before, after)
			}
		}
	})
}
