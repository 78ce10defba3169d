package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/transfer"
)

// Create implements admin.Bundles.
func (c *adminClient) Create(ctx context.Context, request transfer.CreateRequest, to io.Writer) error {
	resp, err := c.send(ctx, http.MethodPost, "/bundle", admin.BundleRequestOf(request))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{resp.Body}, make([]byte, 256<<10)); err != nil {
		return fmt.Errorf("%s broke off, and its log says why: %w", c.address, err)
	}
	return nil
}

// Import implements admin.Bundles.
func (c *adminClient) Import(ctx context.Context, in io.Reader, opts transfer.ImportOptions, progress func(transfer.ImportProgress)) (transfer.Imported, error) {
	resp, err := c.sendStream(ctx, http.MethodPost, fmt.Sprintf("/import?pin=%t&force=%t", !opts.NoPin, opts.Force), "application/x-tar", struct{ io.Reader }{in})
	if err != nil {
		return transfer.Imported{}, err
	}
	defer resp.Body.Close() // which ends the sending, if the server has had enough
	var last admin.ImportLine
	for lines := json.NewDecoder(bufio.NewReader(resp.Body)); !last.Done; {
		last = admin.ImportLine{}
		if err := lines.Decode(&last); err != nil {
			return last.Imported, fmt.Errorf("%s broke off: %w", c.address, err)
		}
		if progress != nil {
			progress(last.ImportProgress)
		}
	}
	if last.Error != "" {
		return last.Imported, admin.Error{Message: last.Error, Kind: last.Kind}
	}
	return last.Imported, nil
}

// Have implements admin.Bundles.
func (c *adminClient) Have(ctx context.Context, fn func(metadata.Digest) error) error {
	resp, err := c.send(ctx, http.MethodGet, "/have", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if err := fn(metadata.Digest(lines.Text())); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s broke off: %w", c.address, err)
	}
	return nil
}
