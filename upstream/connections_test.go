package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

var protocols = []string{"HTTP/1.1", "HTTP/2.0"}

// bothProtocols runs a test by each protocol, by synctest's clock.
func bothProtocols(t *testing.T, test func(t *testing.T, protocol string)) {
	t.Helper()
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, protocol) })
		})
	}
}

// took is how long a question takes that is answered.
func took(t *testing.T, what string, ask func() error) time.Duration {
	t.Helper()
	began := time.Now()
	if err := ask(); err != nil {
		t.Errorf("%s: %v after %s", what, err, time.Since(began))
	}
	return time.Since(began)
}

func tag(t *testing.T, r *Remote) func() error {
	return func() error {
		c, err := r.Manifest(t.Context(), "app", "1")
		if err != nil {
			return err
		}
		defer c.Body.Close()
		_, err = io.Copy(io.Discard, c.Body)
		return err
	}
}

// A client that waits for 18 s does not see that a connection was forgotten,
// and later ones do not even wait.
func TestAForgottenConnectionCostsOneRequestSomeTime(t *testing.T) {
	for _, idle := range []time.Duration{10 * time.Millisecond, 10 * time.Second, 13 * time.Second, time.Minute} {
		t.Run(fmt.Sprintf("after %s", idle), func(t *testing.T) {
			bothProtocols(t, func(t *testing.T, protocol string) {
				r, n := reachOver(t, protocol, func(w http.ResponseWriter, _ *http.Request) { answerManifest(w) })
				var all sync.WaitGroup
				for range 8 {
					all.Go(func() { took(t, "before", tag(t, r)) })
				}
				all.Wait()
				n.forget("")
				time.Sleep(idle)
				for range 4 {
					all.Go(func() {
						if d := took(t, "a question", tag(t, r)); d > 17100*time.Millisecond || protocol == "HTTP/1.1" && d > 0 {
							t.Errorf("a question took %s", d)
						}
					})
				}
				all.Wait()
				for range 3 {
					if d := took(t, "a later one", tag(t, r)); d > 0 {
						t.Errorf("a later one took %s", d)
					}
				}
				synctest.Wait()
				if got := len(r.client.busy); got > 0 {
					t.Errorf("%d connections have requests open", got)
				}
			})
		})
	}
}

// Whatever is asked of whichever host goes by the same rules.
func TestAForgottenConnectionToAnotherHostCostsOneRequestSomeTime(t *testing.T) {
	blob := digest.FromString("a layer")
	for _, forgotten := range []string{"hub.test:443", "auth.hub.test:443", "storage.test:443"} {
		t.Run(forgotten, func(t *testing.T) {
			bothProtocols(t, func(t *testing.T, protocol string) {
				r, n := reachOver(t, protocol, func(w http.ResponseWriter, req *http.Request) {
					switch {
					case req.Host == "auth.hub.test":
						answer(w, http.StatusOK, "application/json", `{"token":"t","expires_in":1}`)
					case req.Host == "storage.test":
						answer(w, http.StatusOK, "application/octet-stream", "a layer")
					case req.Header.Get("Authorization") == "":
						w.Header().Set("WWW-Authenticate", `Bearer realm="https://auth.hub.test/token",service="hub.test",scope="repository:app:pull"`)
						answer(w, http.StatusUnauthorized, "application/json", `{"errors":[{"code":"UNAUTHORIZED"}]}`)
					default:
						http.Redirect(w, req, "https://storage.test/a", http.StatusTemporaryRedirect)
					}
				})
				if forgotten == "auth.hub.test:443" {
					// It is asked with POST then.
					r.opts.Credentials = CredentialsFunc(func(context.Context) (Credentials, error) { return Credentials{IdentityToken: "i"}, nil })
				}
				pull := func() error {
					c, err := r.Blob(t.Context(), "app", blob, 0, -1)
					if err != nil {
						return err
					}
					defer c.Body.Close()
					_, err = io.Copy(io.Discard, c.Body)
					return err
				}
				took(t, "before", pull)
				time.Sleep(2 * time.Second) // the token's time is over
				n.forget(forgotten)
				if d := took(t, "a blob", pull); d > 17100*time.Millisecond {
					t.Errorf("it took %s", d)
				}
				time.Sleep(2 * time.Second)
				if d := took(t, "a later one", pull); d > 0 {
					t.Errorf("a later one took %s", d)
				}
				synctest.Wait()
				if got := len(r.client.busy); got > 0 {
					t.Errorf("%d connections have requests open", got)
				}
			})
		})
	}
}

// layerThatStops answers for a blob of 1 MiB, and stops in its middle once.
func layerThatStops(stop <-chan struct{}) http.HandlerFunc {
	var once sync.Once
	body := strings.Repeat("x", 1<<20)
	return func(w http.ResponseWriter, req *http.Request) {
		stops := false
		once.Do(func() { stops = true })
		if !stops {
			http.ServeContent(w, req, "", time.Time{}, strings.NewReader(body))
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = io.WriteString(w, body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-stop:
			_, _ = io.WriteString(w, body[len(body)/2:])
		case <-req.Context().Done():
		}
	}
}

func TestABodyOnAForgottenConnectionGoesOnByAnotherOne(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, n := reachOver(t, protocol, layerThatStops(nil))
				first, err := r.Blob(t.Context(), "app", subjectOf(0), 0, -1)
				if err != nil {
					t.Fatal(err)
				}
				defer first.Body.Close()
				if _, err := io.ReadFull(first.Body, make([]byte, 1<<19)); err != nil {
					t.Fatal(err)
				}
				n.forget("")
				// Somebody may ask for the rest before the connection is known to be dead.
				time.Sleep(15 * time.Second)
				rest := func() error {
					c, err := r.Blob(t.Context(), "app", subjectOf(0), 1<<19, 1<<19)
					if err != nil {
						return err
					}
					defer c.Body.Close()
					got, err := io.Copy(io.Discard, c.Body)
					if got != 1<<19 || c.From != 1<<19 {
						t.Errorf("%d bytes from %d", got, c.From)
					}
					return err
				}
				if d := took(t, "the rest", rest); d > 0 {
					t.Errorf("the rest took %s", d)
				}
				began := time.Now()
				_, err = first.Body.Read(make([]byte, 1))
				if want := map[string]time.Duration{"HTTP/1.1": time.Minute, "HTTP/2.0": 10 * time.Second}[protocol]; !errors.Is(err, ErrUnavailable) || time.Since(began) != want {
					t.Errorf("the body ends after another %s with %v, want %s", time.Since(began), err, want)
				}
				if d := took(t, "the rest, then", rest); d > 0 {
					t.Errorf("the rest, then, took %s", d)
				}
			})
		})
	}
}

// The registry lives, but it does not answer one question. The next one may do
// better on another connection, where another of its machines answers.
func TestAConnectionOnWhichARequestTimedOutGetsNoOther(t *testing.T) {
	bothProtocols(t, func(t *testing.T, protocol string) {
		finish := make(chan struct{})
		layer := layerThatStops(finish)
		r, n := reachOver(t, protocol, func(w http.ResponseWriter, req *http.Request) {
			switch {
			case strings.Contains(req.URL.Path, "/blobs/"):
				layer(w, req)
			case strings.HasSuffix(req.URL.Path, "/slow"):
				late(req, time.Hour)
			default:
				answerManifest(w)
			}
		})
		r.opts.Waits.Header = 62 * time.Second // the last ping has just been answered
		// Something else that is open on the connection goes on.
		c, err := r.Blob(t.Context(), "app", subjectOf(0), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Body.Close()
		if _, err := r.Manifest(t.Context(), "app", "slow"); !errors.Is(err, ErrTimeout) {
			t.Errorf("no answer: %v", err)
		}
		before := len(n.to(""))
		took(t, "the next", tag(t, r))
		if got := len(n.to("")); got != before+1 {
			t.Errorf("the next is asked on one of %d connections, want a new one", before)
		}
		took(t, "the one after that", tag(t, r))
		if got := len(n.to("")); got != before+1 {
			t.Errorf("there are %d connections, and the last was good", got)
		}
		close(finish)
		if got, err := io.Copy(io.Discard, c.Body); got != 1<<20 || err != nil {
			t.Errorf("what was open brings %d bytes: %v", got, err)
		}
	})
}

func TestAnHTTP2ConnectionIsPingedOnlyWhenItIsSilentWithRequestsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := reachOver(t, "HTTP/2.0", func(w http.ResponseWriter, req *http.Request) {
			if strings.HasSuffix(req.URL.Path, "/slow") {
				late(req, 40*time.Second)
			}
			answerManifest(w)
		})
		took(t, "a question", tag(t, r))
		synctest.Wait()
		asked := time.Since(n.began)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		idle := n.to("")[0]
		if closed := idle.closedAt(); closed != 14*time.Second {
			t.Errorf("it is idle, and closed after %s, want 14s", closed)
		}
		for _, at := range idle.sent(asked) {
			if at < 14*time.Second {
				t.Errorf("something is sent on it after %s", at)
			}
		}

		begins := time.Since(n.began)
		if _, err := r.Manifest(t.Context(), "app", "slow"); err != nil {
			t.Error(err)
		}
		var pings []time.Duration
		for _, at := range n.to("")[1].sent(begins) {
			pings = append(pings, at-begins)
		}
		if len(pings) != 2 || pings[0] != 15*time.Second || pings[1] != 30*time.Second {
			t.Errorf("a question is open for 40 s, and something is sent after %s, want after 15 s and after 30 s", pings)
		}
		if got := len(n.to("")); got != 2 || n.count("/slow") != 1 {
			t.Errorf("a slow answer took %d connections and %d requests", got, n.count("/slow"))
		}
	})
}

// A line on which all takes long is not lost: what comes first counts.
func TestASignOfLifeThatComesLateDoesNotLoseTheResponse(t *testing.T) {
	for _, c := range []struct {
		held, answer, second time.Duration
		asked                int
		took                 time.Duration
	}{
		// The first answer comes first, and the other request ends.
		{held: 20 * time.Second, answer: 22 * time.Second, second: 30 * time.Second, asked: 2, took: 22 * time.Second},
		// The second one overtakes it.
		{held: 20 * time.Second, answer: 30 * time.Second, second: time.Second, asked: 2, took: 18 * time.Second},
		// It is a moment only.
		{held: 16 * time.Second, answer: 30 * time.Second, second: time.Second, asked: 1, took: 30 * time.Second},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				slow := 0
				r, n := reachOver(t, "HTTP/2.0", func(w http.ResponseWriter, req *http.Request) {
					if strings.HasSuffix(req.URL.Path, "/slow") {
						mu.Lock()
						slow++
						wait := c.answer
						if slow > 1 {
							wait = c.second
						}
						mu.Unlock()
						late(req, wait)
					}
					answerManifest(w)
				})
				took(t, "a question", tag(t, r))
				synctest.Wait()
				n.to("")[0].hold(c.held)
				if d := took(t, "a slow one", func() error {
					a, err := r.Manifest(t.Context(), "app", "slow")
					if err != nil {
						return err
					}
					defer a.Body.Close()
					_, err = io.Copy(io.Discard, a.Body)
					return err
				}); d != c.took {
					t.Errorf("it took %s, want %s", d, c.took)
				}
				if got := n.count("/slow"); got != c.asked {
					t.Errorf("asked %d times, want %d", got, c.asked)
				}
			})
		})
	}
}
