package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/admission"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/warm"
)

// adminClient is a client of a server's admin API. It is an admin.Cache.
type adminClient struct {
	address   string
	tokenFile string // holds the token for a server on another machine; may be empty
}

func (c *adminClient) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := c.send(ctx, http.MethodGet, "/healthz", nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// send sends a request and returns a response with status 200, or an error.
func (c *adminClient) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(encoded)
	}
	return c.sendStream(ctx, method, path, "application/json", content)
}

// sendStream is send for a body of any type.
func (c *adminClient) sendStream(ctx context.Context, method, path, mediaType string, content io.Reader) (*http.Response, error) {
	host, client := dialable(c.address), http.DefaultClient
	socket, isSocket := config.Socket(c.address)
	if isSocket {
		host, client = "localhost", clientOf(socket)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, content)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", mediaType)
	req.Header.Set("Accept", admin.Lines+", application/json")
	if c.tokenFile != "" && !isSocket && method != http.MethodGet {
		token, err := admission.ReadToken(c.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("admin_token_file: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var failure admin.Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&failure); err != nil || failure.Message == "" {
		return nil, fmt.Errorf("%s answers %s: is it the admin address of an entrepot?", c.address, resp.Status)
	}
	return nil, failure
}

// clientOf returns a client of whoever listens on a Unix socket.
func clientOf(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

// call sends a request and decodes the JSON of the response.
func call[T any](ctx context.Context, c *adminClient, method, path string, body any) (T, error) {
	var response T
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return response, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&response); err != nil {
		return response, fmt.Errorf("the response of %s can't be read: %w", c.address, err)
	}
	return response, nil
}

func (c *adminClient) Inventory(ctx context.Context) (retention.Inventory, error) {
	return retention.Collect(func(each func(retention.Item) error) error { return c.List(ctx, each) })
}

// List also understands a server that answers with everything in one.
func (c *adminClient) List(ctx context.Context, each func(retention.Item) error) error {
	resp, err := c.send(ctx, http.MethodGet, "/cache", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(bufio.NewReader(resp.Body))
	if resp.Header.Get("Content-Type") != admin.Lines {
		var all retention.Inventory
		if err := lines.Decode(&all); err != nil {
			return fmt.Errorf("the response of %s can't be read: %w", c.address, err)
		}
		return all.Each(each)
	}
	for {
		var line admin.ListLine
		if err := lines.Decode(&line); err != nil {
			return fmt.Errorf("%s broke off: %w", c.address, err)
		}
		if line.Error != "" {
			return errors.New(line.Error)
		}
		if err := each(line.Item); err != nil || line.Totals != nil {
			return err
		}
	}
}

func (c *adminClient) Purge(ctx context.Context, t retention.Target, dryRun bool) (retention.Purged, error) {
	return call[retention.Purged](ctx, c, http.MethodPost, "/cache/purge", admin.PurgeRequestOf(t, dryRun))
}

func (c *adminClient) Pin(ctx context.Context, r metadata.Reference) (warm.Completion, error) {
	return call[warm.Completion](ctx, c, http.MethodPost, "/pins", admin.ReferenceOf(r))
}

func (c *adminClient) Unpin(ctx context.Context, r metadata.Reference) (bool, error) {
	response, err := call[admin.UnpinResponse](ctx, c, http.MethodDelete, "/pins", admin.ReferenceOf(r))
	return response.Unpinned, err
}

func (c *adminClient) Pins() ([]metadata.Reference, error) {
	list, err := call[[]admin.Reference](context.Background(), c, http.MethodGet, "/pins", nil)
	var all []metadata.Reference
	for _, r := range list {
		all = append(all, r.Image())
	}
	return all, err
}

func (c *adminClient) Scrub(ctx context.Context, rate int64, progress func(retention.Scrubbed)) (retention.Scrubbed, error) {
	resp, err := c.send(ctx, http.MethodPost, "/cache/scrub?rate="+strconv.FormatInt(rate, 10), nil)
	if err != nil {
		return retention.Scrubbed{}, err
	}
	defer resp.Body.Close()
	var last admin.ScrubLine
	for lines := json.NewDecoder(bufio.NewReader(resp.Body)); !last.Done; progress(last.Scrubbed) {
		last = admin.ScrubLine{}
		if err := lines.Decode(&last); err != nil {
			return last.Scrubbed, fmt.Errorf("%s broke off: %w", c.address, err)
		}
	}
	if last.Error != "" {
		return last.Scrubbed, errors.New(last.Error)
	}
	return last.Scrubbed, nil
}

func (c *adminClient) FetchAll(ctx context.Context, wanted []warm.Wanted, opts warm.FetchOptions) (warm.Result, error) {
	resp, err := c.send(ctx, http.MethodPost, "/warm", admin.WarmRequestOf(wanted, opts))
	if err != nil {
		return warm.Result{}, err
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(bufio.NewReader(resp.Body)); ; {
		var line admin.WarmLine
		switch err := lines.Decode(&line); {
		case err != nil:
			return warm.Result{}, fmt.Errorf("%s broke off: %w", c.address, err)
		case line.Done && line.Error != "":
			return warm.Result{}, errors.New(line.Error)
		case line.Done && line.Result != nil:
			return *line.Result, nil
		case opts.Report != nil:
			opts.Report(line.Event)
		}
	}
}
