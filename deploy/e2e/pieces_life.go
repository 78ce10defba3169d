package e2e

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// pieceReading reads a blob in pieces, by nodes that have nothing of it, and says
// how many bytes of it one of them asked for; none where it can't tell.
type pieceReading func(t *testing.T, when string) (read int64)

// pieceLife is a blob that is read in pieces: straight from an upstream, and then
// through a mirror that has never seen it, that has, and that has lost its
// upstream.
type pieceLife struct {
	pieceLimit
	blob     *knownBlob
	registry http.Handler                                                      // which has it
	start    func(t *testing.T, s *suite, m *mirror, host string) pieceReading // without a mirror m is nil
	unasked  span                                                              // what nobody reads of a blob that is only looked at
	itself   bool                                                              // whether only requests for the blob itself count
}

func (s *suite) readInPieces(t *testing.T, life pieceLife) pieceFigures {
	t.Helper()
	f := pieceFigures{pieceLimit: life.pieceLimit, blob: life.blob.size()}
	straight := s.serveUpstream(t, life.registry, func(*testing.T) {})
	f.read = life.start(t, s, nil, straight.host)(t, "without a mirror")
	f.straight = life.counted(straight.settled(t))
	if f.read == 0 {
		f.read = f.straight.bytes()
	}

	f.checkStraight(t)

	up := s.serveUpstream(t, newLine(life.registry), func(*testing.T) {})
	m := s.startMirror(t, up, time.Hour)
	read := life.start(t, s, m, m.address)
	read(t, "what was never seen")
	f.cold = life.counted(up.settled(t))
	f.checkCold(t)

	read(t, "what was seen")
	f.warm = up.settled(t)
	f.checkWarm(t)

	up.stop(t)
	read(t, "with the upstream stopped")
	life.unaskedIsNotHad(t, m)
	m.stop(t)
	m.start(t)
	read(t, "with the upstream stopped, after a restart")
	life.unaskedIsNotHad(t, m)
	return f
}

func (life pieceLife) counted(all requests) requests {
	if !life.itself {
		return all
	}
	return all.where(func(r request) bool { return strings.HasSuffix(r.path, life.blob.digest) })
}

// unaskedIsNotHad checks that with the upstream gone there is no answer for what
// nobody has read of a blob, and that this is said.
func (life pieceLife) unaskedIsNotHad(t *testing.T, m *mirror) {
	t.Helper()
	if !life.look {
		return
	}
	r := newPieceReader(m.address, life.blob)
	defer r.leave()
	_, err := r.spans(t.Context(), life.unasked)
	var answered *errStatus
	if !errors.As(err, &answered) || answered.status != http.StatusBadGateway {
		t.Errorf("what nobody read is answered with %v, want %d", err, http.StatusBadGateway)
	}
}
