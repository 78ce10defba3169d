package disk

import (
	"reflect"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

func testMap(r runs) draftMap {
	m := draftMap{digest: digest.FromString("content"), size: large, at: time.Unix(0, 1234567890), note: []byte("note")}
	for piece := range int64(largePieces) {
		m.runs = append(m.runs, r.byPiece[piece]...)
	}
	return m
}

func TestAMapIsReadBack(t *testing.T) {
	var r runs
	content := pattern("content", large)
	r.add(content[:100], 0)
	r.add(content[300:2*pieceSize], 300)
	r.add(content[9*pieceSize+1:], 9*pieceSize+1)
	for _, m := range []draftMap{
		{digest: digest.FromString("nothing"), size: -1, at: time.Unix(0, -5)},
		{digest: digest.SHA512.FromString("nothing"), size: 0, at: time.Unix(1<<32, 7)},
		testMap(r),
	} {
		got, err := decodeMap(m.encode())
		if err != nil {
			t.Fatal(err)
		}
		for i := range m.runs {
			m.runs[i].checked = false
		}
		if len(m.note) == 0 {
			m.note = got.note
		}
		if !reflect.DeepEqual(got, m) {
			t.Errorf("%+v is read as %+v", m, got)
		}
	}
}

func TestAMapOfSmallPiecesIsSmall(t *testing.T) {
	const size, piece = 350_000_000, 50_000
	var r runs
	content := pattern("content", piece)
	for off := int64(0); off < size; off += piece {
		r.add(content, off)
	}
	m := draftMap{digest: digest.FromString("content"), size: size, at: time.Now(), runs: r.all()}
	if n := len(m.runs); n > size/pieceSize+1 {
		t.Errorf("%d pieces in order have %d checksums", size/piece, n)
	}
}

func TestAMapThatCannotBeIsRefused(t *testing.T) {
	for name, change := range map[string]func(m *draftMap){
		"a digest that is none":        func(m *draftMap) { m.digest = "sha256:../../x" },
		"a size that is none":          func(m *draftMap) { m.size = -2 },
		"pieces past the end":          func(m *draftMap) { m.size-- },
		"a run over more than a piece": func(m *draftMap) { m.runs = m.runs[:1]; m.runs[0].To++ },
		"a run of nothing":             func(m *draftMap) { m.runs[1].From = m.runs[1].To },
		"runs that overlap":            func(m *draftMap) { m.runs[1].From-- },
		"a run of more bytes than can be": func(m *draftMap) {
			m.size = -1
			m.runs[len(m.runs)-1].To = -5
		},
	} {
		var r runs
		r.add(pattern("content", large), 0)
		m := testMap(r)
		change(&m)
		if got, err := decodeMap(m.encode()); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// FuzzMap holds that what is read from a map can be trusted: the runs are in
// order and each within its piece, so that they can be read and resumed.
func FuzzMap(f *testing.F) {
	var r runs
	r.add(pattern("content", large), 0)
	for _, m := range []draftMap{{digest: digest.FromString("content"), size: -1, note: []byte("x")}, testMap(r)} {
		f.Add(m.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4 { // mutations get past the checksum
			b = sealMap(b[:len(b)-4])
		}
		m, err := decodeMap(b)
		if err != nil {
			return
		}
		at := int64(0)
		var have cache.Spans
		for _, r := range m.runs {
			if r.From < at || r.Len() <= 0 || r.Len() > pieceSize || r.From/pieceSize != (r.To-1)/pieceSize || m.size >= 0 && r.To > m.size {
				t.Fatalf("a run of %v after %d, of %d bytes", r.Span, at, m.size)
			}
			at = r.To
			have.Add(r.Span)
		}
		if have.Len() != m.kept().Bytes {
			t.Errorf("%d bytes are said to be %d", have.Len(), m.kept().Bytes)
		}
		again, err := decodeMap(m.encode())
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%+v is read back as %+v, %v", m, again, err)
		}
	})
}
