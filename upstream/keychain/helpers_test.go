package keychain

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/upstream"
)

// helped is an upstream whose login a scripted helper has.
type helped struct {
	*Keychain
	mu      sync.Mutex
	asked   []string
	creds   upstream.Credentials
	err     error
	takes   time.Duration
	running int
	most    int
	panics  bool
}

// newHelped returns an upstream with the endpoint's host. The helpers are those
// of a file.
func newHelped(t *testing.T, content, name, host string) *helped {
	t.Helper()
	write(t, filepath.Join(home(t), dockerFile), content)
	h := &helped{creds: upstream.Credentials{Username: "me", Password: "first"}}
	helpers := NewHelpers()
	helpers.run = h.run
	log := slog.New(slog.DiscardHandler)
	h.Keychain = New(Options{Files: NewFiles(log), Helpers: helpers, Log: log, Upstream: name, Host: host})
	return h
}

func (h *helped) run(ctx context.Context, helper, server string) (upstream.Credentials, error) {
	takes := h.begin(helper + " " + server)
	select {
	case <-time.After(takes):
	case <-ctx.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running--
	if ctx.Err() != nil {
		return upstream.Credentials{}, context.Cause(ctx)
	}
	return h.creds, h.err
}

func (h *helped) begin(line string) (takes time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.panics {
		panic("broken")
	}
	h.asked = append(h.asked, line)
	h.running++
	h.most = max(h.most, h.running)
	return h.takes
}

func (h *helped) set(fn func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fn()
}

// ask asks once, for at most a client's patience.
func (h *helped) ask(t *testing.T) (upstream.Credentials, time.Duration, error) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	c, err := h.Credentials(ctx, "app")
	return c, time.Since(began), err
}

// runs returns how often a helper has run since the last call.
func (h *helped) runs() int {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.asked)
	h.asked = nil
	return n
}

// inTime runs a test with a clock of its own, and lets its helpers end.
func inTime(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(t)
		time.Sleep(time.Hour)
	})
}

const oneHelper = `{"credHelpers": {"quay.io": "x"}}`

func TestAHelperRunsOnce(t *testing.T) {
	inTime(t, func(t *testing.T) {
		h := newHelped(t, oneHelper, "quay.io", "quay.io")
		h.takes = 5 * time.Second
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if c, _, err := h.ask(t); err != nil || c != h.creds {
					t.Errorf("%+v, %v", c, err)
				}
			})
		}
		all.Wait()
		for range 59 {
			time.Sleep(45 * time.Second)
			if c, took, err := h.ask(t); err != nil || c != h.creds || took != 0 {
				t.Errorf("%+v, %v after %s", c, err, took)
			}
		}
		if n := h.runs(); n != 1 {
			t.Errorf("it ran %d times in 45 minutes", n)
		}
		time.Sleep(10 * time.Minute)
		if c, took, err := h.ask(t); err != nil || c != h.creds || took != 0 {
			t.Errorf("while it is asked again: %+v, %v after %s", c, err, took)
		}
		if n := h.runs(); n != 1 {
			t.Errorf("it ran %d times when its time was over", n)
		}
	})
}

func TestARefusedLoginIsAskedForAgain(t *testing.T) {
	inTime(t, func(t *testing.T) {
		h := newHelped(t, oneHelper, "quay.io", "quay.io")
		first, _, _ := h.ask(t)
		h.set(func() { h.creds.Password = "second" })
		h.Reject("app", first)
		h.Reject("app", first) // by another request
		second, _, err := h.ask(t)
		if err != nil || second.Password != "second" || h.runs() != 2 {
			t.Errorf("%+v, %v", second, err)
		}
		h.Reject("app", first) // which was under way
		if c, _, err := h.ask(t); err != nil || c != second || h.runs() != 0 {
			t.Errorf("a late refusal of what is no longer used: %+v, %v", c, err)
		}
		for range 10 { // the helper has nothing else
			h.Reject("app", second)
			if c, _, err := h.ask(t); err != nil || c != second {
				t.Errorf("%+v, %v", c, err)
			}
		}
		if n := h.runs(); n != 1 {
			t.Errorf("a login that is refused again and again is asked for %d times", n)
		}
		time.Sleep(helperRetry)
		h.Reject("app", second)
		if _, _, _ = h.ask(t); h.runs() != 1 {
			t.Error("it is never asked for again")
		}
	})
}

func TestWhatAHelperLacksIsAskedForAgainInAMinute(t *testing.T) {
	for name, fails := range map[string]error{"nothing": nil, "an error": errors.New("exit status 1")} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(t *testing.T) {
				h := newHelped(t, oneHelper, "quay.io", "quay.io")
				login := h.creds
				h.creds, h.err = upstream.Credentials{}, fails
				for range 10 {
					if c, _, err := h.ask(t); c.Username != "" || (err == nil) != (fails == nil) || err == nil && c.Absent == "" {
						t.Errorf("%+v, %v", c, err)
					}
				}
				if n := h.runs(); n != 1 {
					t.Errorf("it ran %d times", n)
				}
				h.set(func() { h.creds, h.err = login, nil })
				time.Sleep(helperRetry)
				if c, _, err := h.ask(t); err != nil || c != login {
					t.Errorf("a minute later: %+v, %v", c, err)
				}
			})
		})
	}
}

func TestAHelperThatHangsDelaysNoOtherUpstream(t *testing.T) {
	inTime(t, func(t *testing.T) {
		const both = `{"credHelpers": {"quay.io": "x", "ghcr.io": "y"}, "credsStore": "z"}`
		hangs := newHelped(t, both, "quay.io", "quay.io")
		hangs.takes = time.Hour
		works := newHelped(t, both, "ghcr.io", "ghcr.io")
		var asking sync.WaitGroup
		for range 10 {
			asking.Go(func() {
				if _, took, err := hangs.ask(t); err == nil || took != 15*time.Second {
					t.Errorf("the one that hangs: %v after %s", err, took)
				}
			})
		}
		synctest.Wait()
		if c, took, err := works.ask(t); err != nil || c != works.creds || took != 0 {
			t.Errorf("the other: %+v, %v after %s", c, err, took)
		}
		asking.Wait()
		time.Sleep(helperTimeout)
		for range 10 {
			if _, took, err := hangs.ask(t); err == nil || took > 15*time.Second {
				t.Errorf("after it was killed: %v after %s", err, took)
			}
		}
	})
}

func TestAHelperThatHangsIsNotWaitedForAgain(t *testing.T) {
	inTime(t, func(t *testing.T) {
		// It is asked for the endpoint and for the name, and hangs for both.
		h := newHelped(t, `{"credsStore": "x"}`, "quay.io", "harbor.example")
		login := h.creds
		h.takes = time.Hour
		_, _, _ = h.ask(t)
		time.Sleep(helperTimeout)
		for range 10 {
			if _, took, err := h.ask(t); err == nil || took != 0 {
				t.Errorf("%v after %s", err, took)
			}
		}
		if n := h.runs(); n != 1 {
			t.Errorf("it ran %d times", n)
		}
		time.Sleep(helperRetry)
		h.set(func() { h.takes = 20 * time.Second })
		if _, took, err := h.ask(t); err == nil || took != 0 {
			t.Errorf("when it is tried again: %v after %s", err, took)
		}
		time.Sleep(21 * time.Second)
		if c, _, err := h.ask(t); err != nil || c != login {
			t.Errorf("when it has answered: %+v, %v", c, err)
		}
	})
}

func TestAnUpstreamRunsOneHelperAtATime(t *testing.T) {
	inTime(t, func(t *testing.T) {
		h := newHelped(t, `{"credHelpers": {"quay.io": "x", "quay.io/team": "y"}}`, "quay.io", "quay.io")
		h.takes = 2 * time.Second
		var all sync.WaitGroup
		for _, repo := range []string{"team/app", "other/app"} {
			all.Go(func() {
				if _, err := h.Credentials(t.Context(), repo); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if h.most != 1 || len(h.asked) != 2 {
			t.Errorf("%v, and %d at once", h.asked, h.most)
		}
	})
}

func TestHelpersAreAskedForTheNameTheyKnow(t *testing.T) {
	for _, c := range []struct{ name, content, upstream, host, want string }{
		{"its own", `{"credHelpers": {"123.dkr.ecr.us-east-1.amazonaws.com": "ecr-login"}, "credsStore": "desktop"}`, "x", "123.dkr.ecr.us-east-1.amazonaws.com", "ecr-login 123.dkr.ecr.us-east-1.amazonaws.com"},
		{"a pattern", `{"credHelpers": {"*.gcr.io": "gcr"}}`, "eu.gcr.io", "eu.gcr.io", "gcr eu.gcr.io"},
		{"Docker Hub", `{"credHelpers": {"docker.io": "x"}}`, "docker.io", "registry-1.docker.io", "x https://index.docker.io/v1/"},
		{"the store", `{"auths": {"https://index.docker.io/v1/": {}}, "credsStore": "desktop"}`, "docker.io", "registry-1.docker.io", "desktop https://index.docker.io/v1/"},
		{"a helper before what is written", `{"auths": {"quay.io": {"auth": "` + encoded("x") + `"}}, "credHelpers": {"quay.io": "x"}}`, "quay.io", "quay.io", "x quay.io"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inTime(t, func(t *testing.T) {
				h := newHelped(t, c.content, c.upstream, c.host)
				if got, _, err := h.ask(t); err != nil || got != h.creds || len(h.asked) != 1 || h.asked[0] != c.want {
					t.Errorf("%+v, %v: asked %q", got, err, h.asked)
				}
			})
		})
	}
}
