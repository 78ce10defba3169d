package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/entrepot/entrepot/proxy/bundle"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/transfer"
)

// Bundles is what operators carry between caches. Import returns
// [transfer.ErrRefused] beside its result; that keeps its meaning over HTTP.
type Bundles interface {
	Create(ctx context.Context, request transfer.CreateRequest, to io.Writer) error
	Import(ctx context.Context, in io.Reader, opts transfer.ImportOptions, progress func(transfer.ImportProgress)) (transfer.Imported, error)
	Have(ctx context.Context, fn func(metadata.Digest) error) error
}

// A bundle is sent and received as it is (application/x-tar). POST /bundle breaks
// the connection if it fails after it has begun to answer. POST /import?pin=BOOL&
// force=BOOL answers with one line for each blob; the last line has done set.
// GET /have answers with one digest a line.
type (
	// BundleImage is an image of a bundle: see [retention.Selection].
	BundleImage struct {
		Reference

		At metadata.Digest `json:"at,omitempty"`
	}
	// BundleRequest is the body of POST /bundle. Platforms and Referrers are
	// those of all images.
	BundleRequest struct {
		Images    []BundleImage     `json:"images,omitempty"`
		All       bool              `json:"all,omitempty"`
		Pinned    bool              `json:"pinned,omitempty"`
		Platforms []string          `json:"platforms,omitempty"`
		Referrers bool              `json:"referrers"`
		Have      []metadata.Digest `json:"have,omitempty"`
		Asked     []string          `json:"asked,omitempty"`
	}
	// ImportLine is one line of the response to POST /import.
	ImportLine struct {
		transfer.Imported

		Done  bool   `json:"done,omitempty"`
		Error string `json:"error,omitempty"`
		Kind  string `json:"kind,omitempty"`
	}
)

// maxBundleRequest bounds the body of POST /bundle, in bytes: it lists what the
// other side has.
const maxBundleRequest = 256 << 20

// request returns what a bundle is to have.
func (r BundleRequest) request() (transfer.CreateRequest, error) {
	platforms, err := retention.ParsePlatforms(r.Platforms)
	if err != nil {
		return transfer.CreateRequest{}, Error{err.Error(), "failed"}
	}
	request := transfer.CreateRequest{
		All: r.All, Pinned: r.Pinned, Platforms: platforms, Referrers: r.Referrers, Asked: r.Asked, Have: make(bundle.Have, len(r.Have)),
	}
	for _, image := range r.Images {
		request.Images = append(request.Images, retention.Selection{Image: image.Image(), At: image.At, Platforms: platforms, Referrers: r.Referrers})
	}
	for _, d := range r.Have {
		request.Have[d] = true
	}
	return request, nil
}

// Create has a cache create the bundle.
func (r BundleRequest) Create(ctx context.Context, b Bundles, to io.Writer) error {
	request, err := r.request()
	if err != nil {
		return err
	}
	return b.Create(ctx, request, to)
}

func handleBundles(mux *http.ServeMux, b Bundles) {
	mux.HandleFunc("POST /bundle", func(w http.ResponseWriter, r *http.Request) { serveBundle(w, r, b) })
	mux.HandleFunc("POST /import", func(w http.ResponseWriter, r *http.Request) { serveImport(w, r, b) })
	mux.HandleFunc("GET /have", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := b.Have(r.Context(), func(d metadata.Digest) error {
			_, err := fmt.Fprintln(w, d)
			return err
		}); err != nil {
			panic(http.ErrAbortHandler) // a list that looks complete would be believed
		}
	})
}

func serveBundle(w http.ResponseWriter, r *http.Request, b Bundles) {
	var body BundleRequest
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBundleRequest))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil {
		respond(w)(nil, Error{"the request can't be read: " + err.Error(), "failed"})
		return
	}
	out := &begun{to: w}
	err := body.Create(r.Context(), b, out)
	switch {
	case err == nil:
	case !out.has:
		respond(w)(nil, err)
	default:
		panic(http.ErrAbortHandler) // or what was sent would look like a whole file
	}
}

// begun says whether anything was written.
type begun struct {
	to  http.ResponseWriter
	has bool
}

func (b *begun) Write(p []byte) (int, error) {
	if !b.has {
		b.has = true
		b.to.Header().Set("Content-Type", "application/x-tar")
	}
	return b.to.Write(p)
}

func serveImport(w http.ResponseWriter, r *http.Request, b Bundles) {
	query := r.URL.Query()
	pin, pinErr := strconv.ParseBool(query.Get("pin"))
	force, forceErr := strconv.ParseBool(query.Get("force"))
	if err := errors.Join(pinErr, forceErr); err != nil {
		respond(w)(nil, Error{"pin and force have to be true or false", "failed"})
		return
	}
	answer := http.NewResponseController(w)
	_ = answer.EnableFullDuplex() // without it, the lines come when all has been sent
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	send := func(l ImportLine) {
		_ = lines.Encode(l) // when the client disconnects, the body ends, and with it the import
		_ = answer.Flush()
	}
	last := ImportLine{Done: true}
	var err error
	last.Imported, err = b.Import(r.Context(), r.Body, transfer.ImportOptions{NoPin: !pin, Force: force}, func(p transfer.ImportProgress) {
		send(ImportLine{Imported: transfer.Imported{ImportProgress: p}})
	})
	if err != nil {
		last.Error, last.Kind = err.Error(), "failed"
		if errors.Is(err, transfer.ErrRefused) {
			last.Kind = "refused"
		}
	}
	send(last)
	// A connection that is closed with something unread may take the last line with
	// it. The client closes it when it has read that.
	_, _ = io.Copy(io.Discard, r.Body)
}

// BundleRequestOf returns the JSON form of what a bundle is to have.
func BundleRequestOf(request transfer.CreateRequest) BundleRequest {
	r := BundleRequest{All: request.All, Pinned: request.Pinned, Referrers: request.Referrers, Asked: request.Asked, Platforms: retention.FormatPlatforms(request.Platforms)}
	for _, s := range request.Images {
		r.Images = append(r.Images, BundleImage{Reference: ReferenceOf(s.Image), At: s.At})
	}
	r.Have = slices.Sorted(maps.Keys(request.Have))
	return r
}
