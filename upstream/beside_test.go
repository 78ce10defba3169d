package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// Requests beside others get a quarter of the places, with the one that they are
// beside, and none that anybody waits for.
func TestRequestsBesideOthersTakeOnlyPlacesThatAreFree(t *testing.T) {
	d := digest.FromString("x")
	for name, c := range map[string]struct{ places, want int }{
		"32": {32, 7}, "8": {8, 1}, "7": {7, 0}, "1": {1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := Limit(&fakeRegistry{}, c.places)
			var open []Content
			for range 10 {
				content, err := r.Blob(Beside(t.Context(), 1), "repo", d, 0, 10)
				if err != nil {
					if !errors.Is(err, ErrNoPlace) || !errors.Is(err, ErrUnavailable) {
						t.Error(err)
					}
					break
				}
				open = append(open, content)
			}
			if len(open) != c.want {
				t.Errorf("%d requests beside others, want %d", len(open), c.want)
			}
			for _, content := range open {
				content.Body.Close()
			}
			if c.want > 0 {
				content, err := r.Blob(Beside(t.Context(), 1), "repo", d, 0, 10)
				if err != nil {
					t.Fatalf("all have ended: %v", err)
				}
				content.Body.Close()
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		slots := NewSlots(8)
		r := slots.Limit(&fakeRegistry{})
		var open []Content
		for range 7 { // all that there are for blobs
			content, err := r.Blob(t.Context(), "repo", d, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, content)
		}
		began := time.Now()
		if _, err := r.Blob(Beside(t.Context(), 1), "repo", d, 0, 10); !errors.Is(err, ErrNoPlace) || time.Since(began) > 0 {
			t.Errorf("no place is free: %v after %s", err, time.Since(began))
		}
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := r.Blob(ctx, "repo", d, 0, -1)
			left <- err
		}()
		synctest.Wait()
		if _, err := r.Blob(Beside(t.Context(), 1), "repo", d, 0, 10); !errors.Is(err, ErrNoPlace) {
			t.Errorf("another one waits: %v", err)
		}
		leave()
		<-left
		for _, content := range open {
			content.Body.Close()
		}
		if len(slots.all)+len(slots.blobs)+len(slots.beside) != 0 {
			t.Errorf("places are held: %d, %d, %d", len(slots.all), len(slots.blobs), len(slots.beside))
		}
	})
}

// HTTP/2 has one connection for all requests, and what is fetched side by side
// would share its pace.
func TestRequestsBesideOthersHaveConnectionsOfTheirOwn(t *testing.T) {
	bothProtocols(t, func(t *testing.T, protocol string) {
		r, n := reachOver(t, protocol, func(w http.ResponseWriter, req *http.Request) {
			time.Sleep(time.Second)
			w.Header().Set("Content-Range", "bytes 0-0/10")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("x")) // the client sees what it lacks
		})
		blob := func(ctx context.Context) {
			c, err := r.Blob(ctx, "app", digest.FromString("x"), 0, 1)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Body.Close()
			if _, err := io.Copy(io.Discard, c.Body); err != nil {
				t.Error(err)
			}
		}
		for range 2 {
			done := make(chan struct{})
			for number := range 4 {
				go func() {
					blob(Beside(t.Context(), number))
					done <- struct{}{}
				}()
			}
			for range 4 {
				<-done
			}
		}
		if got := len(n.to("")); got != 4 {
			t.Errorf("%d connections for four at once, twice", got)
		}
		r.Close()
		time.Sleep(time.Second)
		for _, conn := range n.to("") {
			if conn.closedAt() == 0 {
				t.Error("a connection is left open")
			}
		}
	})
}
