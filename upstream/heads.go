package upstream

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// headRetryInterval is for how long HEAD is not used after a GET has succeeded
// where it failed, and for how long a failed probe is not repeated.
const headRetryInterval = 10 * time.Minute

// headProbeWait is how long a probe waits. It asks for what has just been
// there, so there is nothing to fetch or to search for.
const headProbeWait = 10 * time.Second

// headSupport records how an endpoint responds to HEAD, for one kind of
// content. Storage behind a redirect accepts a signature for one method only,
// and some registries refuse HEAD, or challenge it endlessly (W44). Then only
// GET can be trusted.
type headSupport struct {
	mu           sync.Mutex
	worked       bool // a HEAD has succeeded
	brokenUntil  time.Time
	sample       content // the last that a GET returned
	noProbeUntil time.Time
}

// content is what a HEAD asks for.
type content struct{ repo, ref string }

// resolve gets a descriptor with head, or with get if head is known not to work
// or its result can't be trusted.
func (h *headSupport) resolve(ctx context.Context, about content, head func(context.Context, content) (Descriptor, error), get func() (Descriptor, error)) (Descriptor, error) {
	useless, worked := h.state()
	if useless {
		return get()
	}
	d, headErr := head(ctx, about)
	if headErr == nil || errors.Is(headErr, errStaleHead) {
		h.update(func() { h.worked = true })
		return d, headErr
	}
	if !doubtful(headErr, worked) || !doubtful(headErr, true) && h.probe(ctx, head) {
		return d, headErr
	}
	d, err := get()
	if err == nil {
		h.update(func() { h.brokenUntil = time.Now().Add(headRetryInterval) })
	}
	return d, err
}

func (h *headSupport) state() (useless, worked bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Before(h.brokenUntil), h.worked
}

// sawContent records content that a GET has returned.
func (h *headSupport) sawContent(sample content) { h.update(func() { h.sample = sample }) }

// probe finds out whether HEAD works at all, with content that a GET has
// returned. It saves GETs, because registries limit those of manifests, and not
// HEADs (W42). After a failure it is not repeated for a while.
func (h *headSupport) probe(ctx context.Context, head func(context.Context, content) (Descriptor, error)) bool {
	h.mu.Lock()
	sample, vain := h.sample, time.Now().Before(h.noProbeUntil)
	h.mu.Unlock()
	if vain || sample == (content{}) {
		return false
	}
	ctx, cancel := context.WithTimeoutCause(ctx, headProbeWait, errNoHeader)
	defer cancel()
	_, err := head(ctx, sample)
	h.update(func() {
		switch {
		case err == nil:
			h.worked = true
		case doubtful(err, false), errors.Is(err, ErrTimeout): // or each missing tag would wait for it
			h.noProbeUntil = time.Now().Add(headRetryInterval)
		}
	})
	return err == nil
}

func (h *headSupport) update(what func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	what()
}

// doubtful reports whether a failed HEAD can't be trusted. A 404 is trusted if
// a HEAD to the endpoint has succeeded before, unless the response would have
// been a page.
func doubtful(err error, worked bool) bool {
	var s *statusError
	if !errors.As(err, &s) {
		// Storage that does not answer HEAD at all may answer GET.
		return errors.Is(err, ErrThirdParty)
	}
	switch s.status {
	case http.StatusNotFound:
		return !worked || s.form != formBare || errors.Is(err, ErrThirdParty)
	case http.StatusOK, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	return errors.Is(err, ErrThirdParty)
}
