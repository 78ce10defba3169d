package upstream_test

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// behindRelay is a Remote with short waits, of a registry behind a relay.
func behindRelay(t *testing.T, http2 bool) (*upstreamtest.Registry, *upstreamtest.Relay, upstream.Registry) {
	t.Helper()
	var opts []upstreamtest.Option
	if http2 {
		opts = append(opts, upstreamtest.WithHTTP2())
	}
	fake := upstreamtest.New(t, opts...)
	relay := upstreamtest.NewRelay(t, fake)
	return fake, relay, upstream.Retry(remote(t, relay.URL(), func(o *upstream.RemoteOptions) {
		o.InsecureSkipVerify = true
		o.Waits = upstream.Timeouts{Header: 10 * time.Second, Idle: 400 * time.Millisecond, Ping: 150 * time.Millisecond, Pong: 50 * time.Millisecond}
	}))
}

func TestThroughARelayThatForgetsNoRequestFails(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2: %v", http2), func(t *testing.T) {
			t.Parallel()
			fake, relay, r := behindRelay(t, http2)
			manifest, m := fake.AddImage("app", "1", upstreamtest.Bytes(1, 300<<10))
			layer := m.Layers[0].Digest
			questions := []func() error{
				func() error { _, err := r.Resolve(t.Context(), "app", "1"); return err },
				func() error { _, err := r.ResolveBlob(t.Context(), "app", layer); return err },
				func() error { _, err := r.Tags(t.Context(), "app", nil); return err },
				func() error {
					c, err := r.Manifest(t.Context(), "app", "1")
					if got := read(t, c, err); len(got) != int(manifest.Size) {
						return fmt.Errorf("the manifest has %d bytes", len(got))
					}
					return nil
				},
				func() error {
					c, err := r.Blob(t.Context(), "app", layer, 0, -1)
					if got := read(t, c, err); len(got) != 300<<10 {
						return fmt.Errorf("the layer has %d bytes", len(got))
					}
					return nil
				},
			}
			ask := func(when string, most time.Duration) {
				t.Helper()
				var all sync.WaitGroup
				for i, question := range questions {
					all.Go(func() {
						began := time.Now()
						if err := question(); err != nil || time.Since(began) > most {
							t.Errorf("%s, question %d: %v after %s", when, i, err, time.Since(began))
						}
					})
				}
				all.Wait()
			}
			ask("before", 5*time.Second)
			for range 2 {
				<-time.After(20 * time.Millisecond) // the clock of real connections
				relay.Forget()
				ask("once it has forgotten", 5*time.Second) // the limit for a header is 10 s
			}
		})
	}
}

func TestABodyInARelayThatForgetsGoesOnByRange(t *testing.T) {
	const size = 1 << 20
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2: %v", http2), func(t *testing.T) {
			t.Parallel()
			fake, relay, r := behindRelay(t, http2)
			layer := upstreamtest.Bytes(1, size)
			d := fake.AddBlob("app", layer).Digest
			relay.ForgetAfter(size / 2)
			c, err := r.Blob(t.Context(), "app", d, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c.Body)
			c.Body.Close()
			if !errors.Is(err, upstream.ErrUnavailable) || len(got) == 0 || len(got) >= size {
				t.Fatalf("%d bytes come, and then %v", len(got), err)
			}
			from := int64(len(got))
			c, err = r.Blob(t.Context(), "app", d, from, size-from)
			if rest := read(t, c, err); string(got)+rest != string(layer) {
				t.Errorf("%d bytes and the %d of the rest are not the layer", len(got), len(rest))
			}
			if n := relay.Connections(); n < 2 {
				t.Errorf("%d connections", n)
			}
		})
	}
}
