package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"

	"golang.org/x/sync/errgroup"
)

// The sequences in which clients ask for a blob, by their sources at the versions
// named. Each is one node's.

// sociPull is the parallel pull of SOCI 0.16.1 (F6), as its page on registries
// says to set it: a first question, whose answer has to say that there are ranges,
// and then chunks of 16 MiB, ten at once.
func sociPull(ctx context.Context, r *pieceReader) error {
	if err := r.manifest(ctx); err != nil {
		return err
	}
	acceptRanges, err := r.spans(ctx, span{0, 2})
	var answered *errStatus
	switch {
	case errors.As(err, &answered) && answered.status == http.StatusOK && acceptRanges == "":
		return r.whole(ctx)
	case err != nil:
		return err
	case acceptRanges != "bytes":
		return fmt.Errorf("the answer's Accept-Ranges is %q", acceptRanges)
	}
	return r.chunks(ctx, 16<<20, 10)
}

// ollamaParts is what Ollama 0.17.4 does (F1): it learns the size, asks for the
// whole to learn where it is, leaves with the header, and reads parts of a 16th of
// the blob but not below 100 MB, 16 at once.
func ollamaParts(ctx context.Context, r *pieceReader) error {
	if err := r.manifest(ctx); err != nil {
		return err
	}
	if err := r.head(ctx); err != nil {
		return err
	}
	if err := r.header(ctx); err != nil {
		return err
	}
	return r.chunks(ctx, min(max(r.blob.size()/16, 100e6), 1000e6), 16)
}

// chunks reads all in bounded ranges of a size, so many at once.
func (r *pieceReader) chunks(ctx context.Context, size int64, atOnce int) error {
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(atOnce)
	for from := int64(0); from < r.blob.size(); from += size {
		all.Go(func() error {
			_, err := r.spans(ctx, span{from, min(from+size, r.blob.size())})
			return err
		})
	}
	return all.Wait()
}

// fromAhead is a client that goes on with a download that it began elsewhere.
func fromAhead(ctx context.Context, r *pieceReader) error {
	if err := r.manifest(ctx); err != nil {
		return err
	}
	return r.from(ctx, 100e6)
}

// partialUpdate is what containers/storage 1.65.1 asks for, to make a
// zstd:chunked layer of one that it has and of what is new in it (F4): the table
// of contents and the tar-split, which are at the end, and then all holes in one
// request.
func partialUpdate(ctx context.Context, r *pieceReader) error {
	if err := r.manifest(ctx); err != nil {
		return err
	}
	if _, err := r.spans(ctx, tableOfContents(r.blob)...); err != nil {
		return err
	}
	_, err := r.spans(ctx, holes(r.blob)...)
	return err
}

func tableOfContents(b *knownBlob) []span {
	const footer, tarSplit, contents = 64, 160_000, 380_000
	end := b.size() - footer
	return []span{{end - tarSplit - contents, end - tarSplit}, {end - tarSplit, end}}
}

// known is so much of a layer that has no hole: the node has all of it.
var known = span{20e6, 24e6}

// holes are 600, with what the node has between them: 34 % of the layer.
func holes(b *knownBlob) []span {
	const count = 600
	random := rand.New(rand.NewChaCha8([32]byte{}))
	content := span{0, tableOfContents(b)[0].from}
	step := (content.len() - known.len()) / (count + 1) // one is cut by what is known
	var all []span
	for i := range int64(count) {
		from := i * step
		if from+step > known.from {
			from += known.len() + step
		}
		long := step/6 + random.Int64N(step*2/5)
		from += random.Int64N(step - long)
		all = append(all, span{from, from + long})
	}
	return all
}

// headerLook is what gguf-parser 0.28.2 asks for to say what the model at a URL is
// (F16). Of a model that it knows by Ollama's name it asks for the whole in HEAD's
// place and leaves with the header: that is no look.
func headerLook(ctx context.Context, r *pieceReader) error {
	if err := r.head(ctx); err != nil {
		return err
	}
	acceptRanges, err := r.spans(ctx, span{0, 4 << 20})
	if err == nil && acceptRanges != "bytes" {
		err = fmt.Errorf("the answer's Accept-Ranges is %q", acceptRanges)
	}
	return err
}
