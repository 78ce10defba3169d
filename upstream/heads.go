package upstream

import (
	"errors"
	"net/http"
	"sync"
	"time"
)

// uselessFor is how long an endpoint's HEAD is not tried again once a GET
// succeeded where it failed, and how long what a GET has brought is not.
const uselessFor = 10 * time.Minute

// heads is what is known of an endpoint's answers to HEAD, of one kind of
// content. Storage behind a redirect signs for one method, and some registries
// refuse HEAD, or challenge it without end (W44): only a GET is believed then.
type heads struct {
	mu      sync.Mutex
	worked  bool // it has told of something
	useless time.Time
	sample  thing // that a GET brought last
	vain    time.Time
}

// thing is what a HEAD is asked about.
type thing struct{ repo, ref string }

// tell asks about a thing with head, or with get where that is of no use or
// not to be believed.
func (h *heads) tell(about thing, head func(thing) (Descriptor, error), get func() (Descriptor, error)) (Descriptor, error) {
	useless, worked := h.known()
	if useless {
		return get()
	}
	d, headErr := head(about)
	if headErr == nil {
		h.note(func() { h.worked = true })
		return d, nil
	}
	if !doubtful(headErr, worked) || !doubtful(headErr, true) && h.works(head) {
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

// brought notes what a GET has brought.
func (h *heads) brought(sample thing) { h.note(func() { h.sample = sample }) }

// works learns whether HEAD tells of anything here from what a GET has brought:
// registries limit GETs of manifests, and not HEADs (W42). Where it does not,
// that is not asked again for a while.
func (h *heads) works(head func(thing) (Descriptor, error)) bool {
	h.mu.Lock()
	sample, vain := h.sample, time.Now().Before(h.vain)
	h.mu.Unlock()
	if vain || sample == (thing{}) {
		return false
	}
	_, err := head(sample)
	h.note(func() {
		switch {
		case err == nil:
			h.worked = true
		case doubtful(err, false), errors.Is(err, ErrTimeout): // or each absence would wait for it
			h.vain = time.Now().Add(uselessFor)
		}
	})
	return err == nil
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
