package e2e

import (
	"context"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// pieceRow is a way of reading a blob in pieces, by so many nodes at once.
type pieceRow struct {
	pieceLimit
	nodes   int
	size    int64
	read    func(context.Context, *pieceReader) error
	unasked span // what nobody read of a blob that is only looked at
	ranges  bool // whether the upstream has them
}

// bigSize is that of a model or a layer that clients read in pieces.
const bigSize = 350 << 20

var pieceRows = []pieceRow{
	{pieceLimit: pieceLimit{note: "F6", name: "SOCI's parallel pull, one node", most: 1.02}, nodes: 1, size: bigSize, read: sociPull, ranges: true},
	{pieceLimit: pieceLimit{note: "F6", name: "SOCI's parallel pull, three nodes at once", most: 1.02}, nodes: 3, size: bigSize, read: sociPull, ranges: true},
	{pieceLimit: pieceLimit{note: "F1", name: "Ollama's parts, five clients at once", most: 1.02}, nodes: 5, size: bigSize, read: ollamaParts, ranges: true},
	{pieceLimit: pieceLimit{note: "F2", name: "a download that goes on at bytes=100000000-", most: 1.02}, nodes: 1, size: bigSize, read: fromAhead, ranges: true},
	{pieceLimit: pieceLimit{note: "F38", name: "SOCI's parallel pull, an upstream without ranges", most: 1.02}, nodes: 1, size: bigSize, read: sociPull},
	{pieceLimit: pieceLimit{note: "F4", name: "podman's partial update, two ranges and then 600", most: 1.25, look: true}, nodes: 1, size: 43_250_000, read: partialUpdate, unasked: known, ranges: true},
	{pieceLimit: pieceLimit{note: "F16", name: "gguf-parser's look at a model's header", most: 1.25, look: true}, nodes: 1, size: 65 << 20, read: headerLook, unasked: span{32 << 20, 33 << 20}, ranges: true},
}

func TestABlobThatIsReadInPiecesCrossesTheLineOnce(t *testing.T) {
	s := readSuite(t)
	registry := s.startDistribution(t, s.folder(t))
	blobs := map[int64]*knownBlob{}
	for _, row := range pieceRows {
		if blobs[row.size] == nil {
			blobs[row.size] = s.pushKnown(t, registry.host, fmt.Sprintf("library/pieces-%d", row.size), row.size)
		}
	}
	page := &piecesPage{}
	for _, row := range pieceRows {
		page.order = append(page.order, row.name)
	}
	t.Run("rows", func(t *testing.T) {
		for _, row := range pieceRows {
			t.Run(row.note+" "+row.name, func(t *testing.T) {
				t.Parallel()
				page.add(s.readInPieces(t, row.life(blobs[row.size], registry.host)))
			})
		}
	})
	registry.process.end(t, syscall.SIGTERM)
	put(t, "pieces", `## Downloads in pieces

Clients that read a blob in pieces, by the requests that their sources make at the versions named, as notes of the field number
them; each byte that they get is held against what was pushed. What is counted are the bytes of all bodies that an upstream sends,
distribution behind a line of 60 MiB a second that is the same for all who ask: until nothing more is asked for, so that what
entrepot downloads when its clients have left counts too. Where the whole is read, or a part from an offset to the end, it is held to the
size of the blob, however many nodes there are; where a client only looks at a blob, to what it read. Nobody read it: what then is
the answer, with the upstream stopped, for a range that no client read.

`+page.String())
}

// registry leads to the one of a host, as the row wants it.
func (row pieceRow) registry(host string) http.Handler {
	if row.ranges {
		return reverseProxy(host)
	}
	return withoutRanges(host)
}

// life is the row's, of a blob that the registry of a host has.
func (row pieceRow) life(blob *knownBlob, host string) pieceLife {
	return pieceLife{
		pieceLimit: row.pieceLimit, blob: blob, registry: row.registry(host), unasked: row.unasked,
		start: func(_ *testing.T, _ *suite, _ *mirror, host string) pieceReading {
			return func(t *testing.T, when string) int64 { return row.readBy(t, when, host, blob) }
		},
	}
}

// readBy has the row's nodes read at once, and says how much one of them got.
func (row pieceRow) readBy(t *testing.T, when, host string, blob *knownBlob) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	nodes, ctx := errgroup.WithContext(ctx)
	var read int64
	for i := range row.nodes {
		r := newPieceReader(host, blob)
		nodes.Go(func() error {
			defer r.leave()
			err := row.read(ctx, r)
			if i == 0 {
				read = r.read.Load()
			}
			return err
		})
	}
	if err := nodes.Wait(); err != nil {
		t.Errorf("%s: %v", when, err)
	}
	return read
}
