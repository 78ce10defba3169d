package upstream

import (
	"errors"
	"net/http"
	"sync"
	"time"
)

// uselessFor is how long an endpoint's HEAD is not tried again once a GET
// succeeded where it failed.
const uselessFor = 10 * time.Minute

// heads is what is known of an endpoint's answers to HEAD, of one kind of
// content. Storage behind a redirect signs for one method, and some registries
// refuse HEAD, or challenge it without end (W44): only a GET is believed then.
type heads struct {
	mu      sync.Mutex
	worked  bool // it has told of something
	useless time.Time
}

// tell asks with head, or with get where that is of no use or not to be
// believed.
func (h *heads) tell(head, get func() (Descriptor, error)) (Descriptor, error) {
	useless, worked := h.known()
	if useless {
		return get()
	}
	d, headErr := head()
	if headErr == nil {
		h.note(func() { h.worked = true })
		return d, nil
	}
	if !doubtful(headErr, worked) {
		return d, headErr
	}
	d, err := get()
	if err == nil {
		h.note(func() { h.useless = time.Now().Add(uselessFor) })
	}
	return d, err
}

func (h *heads) known() (useless, worked bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Before(h.useless), h.worked
}

func (h *heads) note(what func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	what()
}

// doubtful says whether an answer to HEAD says too little to be believed. A
// 404 is believed of an endpoint whose HEAD has told of something before,
// unless it would have been a page.
func doubtful(err error, worked bool) bool {
	var s *statusError
	if !errors.As(err, &s) {
		// Storage that gives no answer at all may give one to GET.
		return errors.Is(err, ErrElsewhere)
	}
	switch s.status {
	case http.StatusNotFound:
		return !worked || s.form != formBare || errors.Is(err, ErrElsewhere)
	case http.StatusOK, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	return errors.Is(err, ErrElsewhere)
}
