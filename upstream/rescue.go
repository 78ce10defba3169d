package upstream

import (
	"context"
	"errors"
	"net/http"
	"sync"
)

// rescue sends a request for a second time, when the connection that it was
// sent on is in doubt.
type rescue struct {
	*connections
	req    *http.Request
	cancel context.CancelCauseFunc // of the first one

	racing   sync.Mutex
	over     bool // the first one
	overtook bool // the second one is the first to be answered
	second   chan answered
	stop     context.CancelCauseFunc // of the second one
}

type answered struct {
	resp *http.Response
	err  error
}

var errOvertaken = errors.New("the response has come on another connection")

// begin sends the request for the second time.
func (r *rescue) begin() {
	again, err := r.again()
	if err != nil {
		return
	}
	r.racing.Lock()
	if r.over {
		r.racing.Unlock()
		return
	}
	// The caller's trace is of the first one alone.
	ctx, cancel := context.WithCancelCause(context.Background())
	context.AfterFunc(r.req.Context(), func() { cancel(context.Cause(r.req.Context())) })
	r.second, r.stop = make(chan answered, 1), cancel
	r.racing.Unlock()

	resp, err := r.send(again.WithContext(ctx), nil) //nolint:bodyclose // whoever gets it closes it: see choose
	r.racing.Lock()
	defer r.racing.Unlock()
	r.second <- answered{resp, err}
	if err == nil && !r.over {
		r.overtook = true
		r.cancel(errOvertaken)
	}
}

// again returns the request, with a body of its own.
func (r *rescue) again() (*http.Request, error) {
	again := r.req.Clone(r.req.Context())
	if again.GetBody == nil {
		return again, nil
	}
	body, err := again.GetBody()
	again.Body = body
	return again, err
}

// choose returns the response that counts, when the first request has ended.
func (r *rescue) choose(resp *http.Response, err error) (*http.Response, error) {
	r.racing.Lock()
	r.over = true
	second, overtook := r.second, r.overtook
	r.racing.Unlock()
	switch {
	case second == nil:
		return resp, err
	case err == nil && !overtook:
		r.drop(second)
		return resp, nil
	case err == nil:
		resp.Body.Close()
	}
	select {
	case a := <-second:
		return a.resp, a.err
	case <-r.req.Context().Done():
		r.drop(second)
		return nil, r.req.Context().Err()
	}
}

// drop ends the second request.
func (r *rescue) drop(second <-chan answered) {
	r.stop(errOvertaken)
	go func() {
		if a := <-second; a.err == nil {
			a.resp.Body.Close()
		}
	}()
}
