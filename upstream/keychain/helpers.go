package keychain

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"

	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// helperKept is how long a login of a helper is used. Refusals end it
	// earlier, so this only concerns logins that the helper has withdrawn. Those
	// of cloud registries last for an hour or more.
	helperKept = time.Hour
	// helperRetry is how long it counts that a helper failed, or that it has
	// nothing: the life of a token that does not say its own.
	helperRetry = time.Minute
	// helperAgain is how long it counts that it has returned refused credentials
	// again: somebody may be about to mend that.
	helperAgain = time.Second
	// helperTimeout is how long a helper may take before it is killed. Those
	// that ask a cloud take seconds.
	helperTimeout = 30 * time.Second
)

// Helpers run an upstream's credential helpers, one at a time, and keep what
// they return. They run in the background: they do not end with the request
// that needed them.
type Helpers struct {
	run  func(ctx context.Context, helper, server string) (upstream.Credentials, error)
	slot chan struct{} // held while a program runs
	life context.Context
	end  context.CancelCauseFunc // kills the program that runs, and starts no other

	mu     sync.Mutex
	kept   map[asked]*login
	silent map[string]time.Time // until when a helper that did not answer is not asked anything else
}

// asked is what was asked of which helper.
type asked struct{ helper, server string }

// login is what a helper has returned, and whether it runs.
type login struct {
	creds   upstream.Credentials
	err     error
	until   time.Time // when it has to be asked again
	renewAt time.Time // when it is asked again while creds are still used
	refused bool      // the registry did not accept creds
	// trusted is until when refusals are ignored, because the helper has
	// returned the same after one.
	trusted time.Time
	running chan struct{} // closed when the helper has ended; nil if it does not run
}

// NewHelpers returns the helpers of one upstream. It starts nothing.
func NewHelpers() *Helpers {
	life, end := context.WithCancelCause(context.Background())
	return &Helpers{
		run: runHelper, slot: make(chan struct{}, 1), life: life, end: end,
		kept: make(map[asked]*login), silent: make(map[string]time.Time),
	}
}

// errClosed is the error of a helper that would outlive the mirror.
var errClosed = errors.New("the mirror stops")

// closeTimeout is how long Close waits for a program that was killed: a moment,
// unless it hangs in the kernel.
const closeTimeout = 2 * time.Second

// Close kills the program that runs, with all that it has started, and waits
// until it has ended. No other is started.
func (h *Helpers) Close() {
	h.end(errClosed)
	select {
	case h.slot <- struct{}{}: // for ever
	case <-time.After(closeTimeout):
	}
}

// login returns the login of an entry. If a helper has it, it waits for the
// helper until ctx is done, unless the helper has not answered last time: then
// the helper is asked, and nobody waits.
func (h *Helpers) login(ctx context.Context, e entry) (upstream.Credentials, error) {
	if e.err != nil || e.helper == "" {
		return e.login, e.err
	}
	h.mu.Lock()
	l := h.of(e)
	if now := time.Now(); !now.Before(l.renewAt) && l.running == nil {
		if now.Before(h.silent[e.helper]) && !errors.Is(l.err, errSilent) {
			h.mu.Unlock()
			return upstream.Credentials{}, fmt.Errorf("the credential helper %q: %w", e.helper, errSilent)
		}
		h.start(l, asked{e.helper, e.server})
	}
	running := l.running
	wait := running != nil && !time.Now().Before(l.until) && !errors.Is(l.err, errSilent)
	creds, err := l.creds, l.err
	h.mu.Unlock()
	if !wait {
		return creds, err
	}
	select {
	case <-running:
		h.mu.Lock()
		defer h.mu.Unlock()
		return l.creds, l.err
	case <-ctx.Done():
		return upstream.Credentials{}, fmt.Errorf("the credential helper %q has not answered yet: %w", e.helper, context.Cause(ctx))
	}
}

// of returns the state of what an entry asks for. h.mu is held.
func (h *Helpers) of(e entry) *login {
	key := asked{e.helper, e.server}
	l, ok := h.kept[key]
	if !ok {
		l = &login{}
		h.kept[key] = l
	}
	return l
}

// start asks a helper. h.mu is held.
func (h *Helpers) start(l *login, what asked) {
	done := make(chan struct{})
	l.running = done
	go func() {
		creds, err := h.askSafely(what)
		h.mu.Lock()
		defer h.mu.Unlock()
		now := time.Now()
		if l.refused && creds == l.creds {
			l.trusted = now.Add(helperAgain)
		}
		l.creds, l.err, l.running, l.refused = creds, err, nil, false
		l.until, l.renewAt = now.Add(helperKept), now.Add(helperKept*4/5)
		if err != nil || creds == (upstream.Credentials{}) {
			l.until, l.renewAt = now.Add(helperRetry), now.Add(helperRetry)
		}
		delete(h.silent, what.helper)
		if errors.Is(err, errSilent) {
			h.silent[what.helper] = l.until.Add(helperTimeout) // this is asked again first
		}
		close(done)
	}()
}

func (h *Helpers) askSafely(what asked) (_ upstream.Credentials, err error) {
	defer panics.Catch("credential helper", &err)
	return h.ask(what)
}

// ask runs a helper when no other runs.
func (h *Helpers) ask(what asked) (upstream.Credentials, error) {
	select {
	case h.slot <- struct{}{}:
		defer func() { <-h.slot }()
	case <-h.life.Done():
		return upstream.Credentials{}, fmt.Errorf("the credential helper %q: %w", what.helper, errClosed)
	}
	ctx, cancel := context.WithTimeoutCause(h.life, helperTimeout, errSilent)
	defer cancel()
	return h.run(ctx, what.helper, what.server)
}

// reject drops a login that a registry did not accept, unless the helper has
// just returned it again after a refusal: asking once more would not help.
func (h *Helpers) reject(e entry, refused upstream.Credentials) {
	if e.helper == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.of(e)
	if l.creds == refused && l.err == nil && !time.Now().Before(l.trusted) {
		l.refused, l.until, l.renewAt = true, time.Time{}, time.Time{}
	}
}

// errSilent is the error of a helper that was killed.
var errSilent = fmt.Errorf("it has not answered within %s", helperTimeout)

// runHelper runs a program with Docker's protocol for credential helpers.
func runHelper(ctx context.Context, helper, server string) (upstream.Credentials, error) {
	found, err := client.Get(func(args ...string) client.Program { return newCommand(ctx, program(helper), args) }, server)
	switch {
	case credentials.IsErrCredentialsNotFound(err):
		return upstream.Credentials{}, nil
	case ctx.Err() != nil:
		return upstream.Credentials{}, fmt.Errorf("the credential helper %q: %w", helper, context.Cause(ctx))
	case err != nil:
		return upstream.Credentials{}, fmt.Errorf("the credential helper %q: %w", helper, err)
	case found.Username == "<token>": // docker/cli, "Credential helper protocol"
		return upstream.Credentials{IdentityToken: found.Secret}, nil
	}
	return upstream.Credentials{Username: found.Username, Password: strings.TrimRight(found.Secret, "\r\n")}, nil
}

func program(helper string) string { return "docker-credential-" + helper }
