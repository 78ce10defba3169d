package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/pull"
)

// running is a server that keeps a cache, behind its admin address.
type running struct{ address string }

func (s *running) alive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := s.send(ctx, http.MethodGet, "/healthz", nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// send asks, and returns an answer with status 200 or an error.
func (s *running) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+dialable(s.address)+path, content)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var refused proxy.AdminError
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&refused); err != nil || refused.Message == "" {
		return nil, fmt.Errorf("%s answers %s: is it the admin address of an entrepot?", s.address, resp.Status)
	}
	return nil, refused
}

func ask[T any](ctx context.Context, s *running, method, path string, body any) (T, error) {
	var answer T
	resp, err := s.send(ctx, method, path, body)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("the answer of %s can't be read: %w", s.address, err)
	}
	return answer, nil
}

func cacheReference(r pull.Reference) proxy.CacheReference {
	return proxy.CacheReference{Upstream: r.Repository.Upstream, Repository: r.Repository.Name, Ref: r.Ref}
}

func (s *running) Inventory(ctx context.Context) (pull.Inventory, error) {
	return ask[pull.Inventory](ctx, s, http.MethodGet, "/cache", nil)
}

func (s *running) Purge(ctx context.Context, t pull.Target, dryRun bool) (pull.Purged, error) {
	return ask[pull.Purged](ctx, s, http.MethodPost, "/cache/purge", proxy.PurgeRequest{CacheReference: cacheReference(pull.Reference(t)), DryRun: dryRun})
}

func (s *running) Pin(ctx context.Context, r pull.Reference) (pull.Completion, error) {
	return ask[pull.Completion](ctx, s, http.MethodPost, "/pins", cacheReference(r))
}

func (s *running) Unpin(ctx context.Context, r pull.Reference) (bool, error) {
	answer, err := ask[proxy.UnpinAnswer](ctx, s, http.MethodDelete, "/pins", cacheReference(r))
	return answer.Unpinned, err
}

func (s *running) Pins() ([]pull.Reference, error) {
	list, err := ask[[]proxy.CacheReference](context.Background(), s, http.MethodGet, "/pins", nil)
	var all []pull.Reference
	for _, r := range list {
		all = append(all, pull.Reference{Repository: pull.Repository{Upstream: r.Upstream, Name: r.Repository}, Ref: r.Ref})
	}
	return all, err
}

func (s *running) Scrub(ctx context.Context, rate int64, tell func(pull.Scrubbed)) (pull.Scrubbed, error) {
	resp, err := s.send(ctx, http.MethodPost, "/cache/scrub?rate="+strconv.FormatInt(rate, 10), nil)
	if err != nil {
		return pull.Scrubbed{}, err
	}
	defer resp.Body.Close()
	var last proxy.ScrubLine
	for lines := json.NewDecoder(bufio.NewReader(resp.Body)); !last.Done; tell(last.Scrubbed) {
		last = proxy.ScrubLine{}
		if err := lines.Decode(&last); err != nil {
			return last.Scrubbed, fmt.Errorf("%s broke off: %w", s.address, err)
		}
	}
	if last.Error != "" {
		return last.Scrubbed, errors.New(last.Error)
	}
	return last.Scrubbed, nil
}
