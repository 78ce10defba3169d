package disk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

// afterKill copies a cache folder as a process that is killed now would leave
// it, and opens the copy.
func afterKill(t *testing.T, dir string) *Cache {
	t.Helper()
	return open(t, copyFolder(t, dir), Options{})
}

func copyFolder(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{"blobs", "drafts"} {
		if err := os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func writeAt(t *testing.T, draft cache.Draft, b []byte, off int64) {
	t.Helper()
	if n, err := draft.WriteAt(b, off); n != len(b) || err != nil {
		t.Fatalf("WriteAt(%d) of %d bytes = %d, %v", off, len(b), n, err)
	}
}

func resume(t *testing.T, b *blobs, d cache.Digest) cache.Draft {
	t.Helper()
	draft, _, err := b.Resume(t.Context(), d)
	if err != nil {
		t.Fatalf("Resume: %v", err)
	}
	t.Cleanup(func() { draft.Close() })
	return draft
}

func wantPieces(t *testing.T, draft cache.Draft, want ...cache.Span) {
	t.Helper()
	if got := draft.Pieces(); !slices.Equal(got, want) {
		t.Errorf("pieces %v, want %v", got, want)
	}
}

func wantDrafts(t *testing.T, b *blobs, want int) {
	t.Helper()
	if left := list(t, b.drafts); len(left) != want {
		t.Errorf("drafts has %q, want %d files", left, want)
	}
}

// finish writes what is missing of a draft and commits it.
func finish(t *testing.T, b *blobs, draft cache.Draft, content []byte) {
	t.Helper()
	size := int64(len(content))
	for {
		if _, err := draft.Advance(1 << 20); err != nil {
			t.Fatalf("Advance: %v", err)
		}
		at := draft.Written()
		if at == size {
			break
		}
		pieces := draft.Pieces()
		missing := pieces.Missing(cache.Span{From: at, To: size})
		if _, err := draft.Write(content[missing.From:missing.To]); err != nil {
			t.Fatalf("Write: %v", err)
		}
	}
	if d := draft.(*draftOnDisk); d.have != size || len(d.runs.byPiece) > 0 || d.runs.unchecked() {
		t.Errorf("%d bytes are counted of %d, with %+v behind the prefix", d.have, size, d.runs)
	}
	if err := draft.Commit(); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	blob := openKept(t, b, digest.FromBytes(content))
	wantSound(t, blob)
	if got, err := io.ReadAll(blob); !bytes.Equal(got, content) || err != nil {
		t.Errorf("other bytes were published, or %v", err)
	}
}

// begun is a draft of large bytes with the first 2.5 pieces, and with two
// further ones that are partly there, saved.
func begun(t *testing.T, b *blobs) (cache.Draft, []byte, []cache.Span) {
	t.Helper()
	content := pattern("content", large)
	draft := create(t, b, descriptor("content", large))
	if _, err := draft.Write(content[:2*pieceSize+1000]); err != nil {
		t.Fatal(err)
	}
	writeAt(t, draft, content[5*pieceSize+100:6*pieceSize+200], 5*pieceSize+100)
	if err := draft.Save([]byte("note")); err != nil {
		t.Fatalf("Save: %v", err)
	}
	return draft, content, []cache.Span{{To: 2*pieceSize + 1000}, {From: 5*pieceSize + 100, To: 6*pieceSize + 200}}
}

func TestASavedDraftIsKeptWhenTheProcessEnds(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, Options{}).blobs
	draft, content, pieces := begun(t, b)
	// What comes later is not in the map, and is not taken for what was saved.
	if _, err := draft.Write(content[2*pieceSize+1000 : 3*pieceSize]); err != nil {
		t.Fatal(err)
	}
	writeAt(t, draft, content[8*pieceSize:9*pieceSize], 8*pieceSize)

	after := afterKill(t, dir).blobs
	d := digest.FromBytes(content)
	kept, ok := after.Kept(d)
	if want := cache.Spans(pieces).Len(); !ok || kept.Bytes != want || kept.Size != large || string(kept.Note) != "note" || kept.KeptAt.IsZero() {
		t.Errorf("kept %+v, %t, want %d bytes", kept, ok, want)
	}
	resumed := resume(t, after, d)
	wantPieces(t, resumed, pieces...)
	for _, s := range pieces {
		if n := resumed.Check(s.From, s.Len()+1); n != s.Len() {
			t.Errorf("Check(%d) = %d, want %d", s.From, n, s.Len())
		}
	}

	// If the process ends again before it is saved, the map still counts.
	if _, err := resumed.Advance(1000); err != nil {
		t.Fatal(err)
	}
	writeAt(t, resumed, content[9*pieceSize:], 9*pieceSize)
	again := afterKill(t, filepath.Dir(after.drafts)).blobs
	resumed = resume(t, again, d)
	wantPieces(t, resumed, pieces...)
	finish(t, again, resumed, content)
	wantDrafts(t, again, 0)
}

func TestAKeptDraftIsFoundAfterAProperEnd(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	draft, content, pieces := begun(t, c.blobs)
	d := digest.FromBytes(content)
	for range 3 {
		if err := errors.Join(draft.Keep([]byte("later")), draft.Close(), c.Close()); err != nil {
			t.Fatal(err)
		}
		c = open(t, dir, Options{})
		if kept, ok := c.blobs.Kept(d); !ok || string(kept.Note) != "later" {
			t.Fatalf("kept %+v, %t", kept, ok)
		}
		draft = resume(t, c.blobs, d)
		wantPieces(t, draft, pieces...)
	}
	finish(t, c.blobs, draft, content)
}

// TestWhatAKillLeavesBetweenTwoSteps has a state of the folder for each point
// between two steps of Save, Keep, Commit, Close and DropKept.
func TestWhatAKillLeavesBetweenTwoSteps(t *testing.T) {
	d := descriptor("content", large).Digest
	for name, c := range map[string]struct {
		leave func(t *testing.T, b *blobs, path string)
		kept  bool
	}{
		"Save, before its first map":   {func(t *testing.T, _ *blobs, path string) { removeFile(t, path+mapSuffix) }, false},
		"Save, in its first map":       {func(t *testing.T, _ *blobs, path string) { renameFile(t, path+mapSuffix, path+mapSuffix+".new") }, false},
		"Save, before it is renamed":   {func(t *testing.T, _ *blobs, path string) { writeFile(t, path+mapSuffix+".new", "x") }, true},
		"Save, when all is done":       {func(*testing.T, *blobs, string) {}, true},
		"Close, without the map":       {func(t *testing.T, _ *blobs, path string) { removeFile(t, path+mapSuffix) }, false},
		"a removal in the wrong order": {func(t *testing.T, _ *blobs, path string) { removeFile(t, path) }, false},
		"Keep, before the earlier one is removed": {func(t *testing.T, b *blobs, path string) {
			copyFile(t, path, filepath.Join(b.drafts, "earlier"))
			m, err := readMap(kernel{}, path)
			if err != nil {
				t.Fatal(err)
			}
			m.runs = m.runs[:1]
			writeFile(t, filepath.Join(b.drafts, "earlier"+mapSuffix), string(m.encode()))
		}, true},
		"Keep, in the removal of the earlier one": {func(t *testing.T, b *blobs, path string) { copyFile(t, path, filepath.Join(b.drafts, "earlier")) }, true},
		"Commit, before the map is removed": {func(t *testing.T, b *blobs, path string) {
			to, _ := b.pathOf(d)
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				t.Fatal(err)
			}
			renameFile(t, path, to)
		}, false},
		"Commit, before one that was kept is removed": {func(t *testing.T, b *blobs, _ string) {
			to, _ := b.pathOf(d)
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				t.Fatal(err)
			}
			writeFile(t, to, string(pattern("content", large)))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			draft, _, pieces := begun(t, open(t, dir, Options{}).blobs)
			dir = copyFolder(t, dir)
			b := &blobs{root: filepath.Join(dir, "blobs"), drafts: filepath.Join(dir, "drafts")}
			path := filepath.Join(b.drafts, filepath.Base(fileOf(draft)))
			c.leave(t, b, path)
			after := open(t, dir, Options{}).blobs
			if _, ok := after.Kept(d); ok != c.kept || len(after.AllKept()) > 1 {
				t.Errorf("kept: %t, %+v, want %t", ok, after.AllKept(), c.kept)
			}
			if !c.kept {
				wantDrafts(t, after, 0)
				return
			}
			wantDrafts(t, after, 2)
			resumed := resume(t, after, d)
			wantPieces(t, resumed, pieces...)
			if err := resumed.Close(); err != nil {
				t.Fatal(err)
			}
			wantDrafts(t, after, 0)
		})
	}
}

type draftOnDisk = draft // where a variable has that name

// fileOf is the path of the file of a draft.
func fileOf(d cache.Draft) string { return d.(*draft).path }

func removeFile(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func renameFile(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, to, string(content))
}

// keptOnDisk is a cache whose only draft was kept, and the draft's file.
func keptOnDisk(t *testing.T, opts Options) (c *Cache, content []byte, file string) {
	t.Helper()
	dir := t.TempDir()
	c = open(t, dir, opts)
	content = pattern("content", large)
	draft := create(t, c.blobs, descriptor("content", large))
	writeAt(t, draft, content[:9*pieceSize], 0)
	if err := errors.Join(draft.Keep(nil), draft.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range list(t, c.blobs.drafts) {
		if !strings.HasSuffix(name, mapSuffix) {
			file = filepath.Join(c.blobs.drafts, name)
		}
	}
	return c, content, file
}

func flipByte(t *testing.T, path string, off int64) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[off] ^= 1
	writeFile(t, path, string(content))
}

func TestADamagedPieceOfAKeptDraftIsDroppedBeforeItIsRead(t *testing.T) {
	const bad = 3*pieceSize + 77
	left := []cache.Span{{To: 3 * pieceSize}, {From: 4 * pieceSize, To: 9 * pieceSize}}
	for _, restarted := range []bool{false, true} {
		for _, by := range []string{"Check of it", "Check of all", "Advance", "Write over a part of it"} {
			t.Run(by, func(t *testing.T) {
				c, content, file := keptOnDisk(t, Options{})
				flipByte(t, file, bad)
				if restarted {
					c = afterKill(t, filepath.Dir(c.blobs.drafts))
				}
				draft := resume(t, c.blobs, digest.FromBytes(content))
				switch by {
				case "Check of it":
					if n := draft.Check(bad+5, 10); n != 0 {
						t.Errorf("Check = %d", n)
					}
				case "Check of all":
					if n := draft.Check(100, large); n != 3*pieceSize-100 {
						t.Errorf("Check = %d, want what is before the damage", n)
					}
				case "Advance":
					n, err := draft.Advance(large)
					if n != 3*pieceSize || draft.Written() != 3*pieceSize || !errors.Is(err, cache.ErrMismatch) {
						t.Errorf("Advance = %d, %v, want ErrMismatch after three pieces", n, err)
					}
					if n, err := draft.Advance(large); n != 0 || err != nil {
						t.Errorf("Advance before the hole = %d, %v", n, err)
					}
				default:
					if _, err := draft.Write(content[:3*pieceSize+10]); err != nil {
						t.Fatal(err)
					}
					wantPieces(t, draft, cache.Span{To: 3*pieceSize + 10}, left[1])
					finish(t, c.blobs, draft, content)
					return
				}
				wantPieces(t, draft, left...)
				if n := draft.Check(4*pieceSize, large); n != 5*pieceSize {
					t.Errorf("Check behind the damage = %d", n)
				}
				finish(t, c.blobs, draft, content)
			})
		}
	}
}

func TestAKeptDraftThatLostItsEndHasTheRest(t *testing.T) {
	c, content, file := keptOnDisk(t, Options{})
	if err := os.Truncate(file, 5*pieceSize+100); err != nil {
		t.Fatal(err)
	}
	c = afterKill(t, filepath.Dir(c.blobs.drafts))
	if kept, _ := c.blobs.Kept(digest.FromBytes(content)); kept.Bytes != 5*pieceSize {
		t.Errorf("%d bytes are kept, want %d", kept.Bytes, 5*pieceSize)
	}
	draft := resume(t, c.blobs, digest.FromBytes(content))
	wantPieces(t, draft, cache.Span{To: 5 * pieceSize})
	finish(t, c.blobs, draft, content)
}

func TestAPieceThatCannotBeReadIsDropped(t *testing.T) {
	c, content, _ := keptOnDisk(t, Options{})
	draft := resume(t, c.blobs, digest.FromBytes(content))
	c.blobs.faults.read = func() error { return syscall.EIO }
	if n := draft.Check(pieceSize, 100); n != 0 {
		t.Errorf("Check = %d", n)
	}
	c.blobs.faults.read = nil
	wantPieces(t, draft, cache.Span{To: pieceSize}, cache.Span{From: 2 * pieceSize, To: 9 * pieceSize})
	finish(t, c.blobs, draft, content)
}

func TestPiecesAreReadOnceToBeChecked(t *testing.T) {
	var r reads
	c, content, _ := keptOnDisk(t, Options{faults: r.faults()})
	draft := resume(t, c.blobs, digest.FromBytes(content))
	r.want(t, "Resume", 0)
	draft.Check(2*pieceSize+5, 10)
	r.want(t, "Check of some bytes", 1)
	draft.Check(2*pieceSize, pieceSize)
	r.want(t, "Check of the same piece", 0)
	draft.Check(pieceSize+5, 3*pieceSize)
	r.want(t, "Check of three others and the same", 3)
	writeAt(t, draft, content[9*pieceSize:10*pieceSize], 9*pieceSize)
	draft.Check(9*pieceSize, pieceSize)
	r.want(t, "Check of what this process wrote", 0)
	for range 2 {
		draft.Check(0, large)
	}
	r.want(t, "Check of all, twice", 5)
	if _, err := draft.Advance(2*pieceSize + 100); err != nil {
		t.Fatal(err)
	}
	r.want(t, "Advance by three pieces", 3)
	draft.Check(0, large)
	r.want(t, "Check of the prefix and all", 0)
}

func TestWhatFollowsAKeptPieceIsNotReadToBeChecked(t *testing.T) {
	var r reads
	b := open(t, t.TempDir(), Options{faults: r.faults()}).blobs
	draft, content, pieces := begun(t, b)
	if err := errors.Join(draft.Keep(nil), draft.Close()); err != nil {
		t.Fatal(err)
	}
	draft = resume(t, b, digest.FromBytes(content))
	end := pieces[1].To
	writeAt(t, draft, content[end:end+100], end)
	if n := draft.Check(end, 100); n != 100 {
		t.Errorf("Check = %d", n)
	}
	r.want(t, "Check of what this process wrote", 0)
	finish(t, b, draft, content)
}

func TestWhatIsWrittenWhileRoomIsReservedIsNotReserved(t *testing.T) {
	b := open(t, t.TempDir(), Options{}).blobs
	draft := create(t, b, descriptor("content", large))
	b.faults.free = func() (int64, error) {
		writeAt(t, draft, pattern("content", pieceSize), 0)
		return 1 << 40, nil
	}
	reserve(t, draft, nil)
	if n := b.reserved.Load(); n != large-pieceSize {
		t.Errorf("%d bytes are reserved, want %d", n, large-pieceSize)
	}
}

func TestDamageSinceAPieceWasWrittenIsFoundWhenItIsHashed(t *testing.T) {
	b := open(t, t.TempDir(), Options{}).blobs
	content := pattern("content", large)
	draft := create(t, b, descriptor("content", large))
	writeAt(t, draft, content, 0)
	flipByte(t, fileOf(draft), pieceSize+1)
	if n, err := draft.Advance(large); n != pieceSize || !errors.Is(err, cache.ErrMismatch) {
		t.Errorf("Advance = %d, %v, want ErrMismatch", n, err)
	}
	wantPieces(t, draft, cache.Span{To: pieceSize}, cache.Span{From: 2 * pieceSize, To: large})
	finish(t, b, draft, content)
}

func TestAClosedDraftDropsNothing(t *testing.T) {
	c, content, _ := keptOnDisk(t, Options{})
	draft := resume(t, c.blobs, digest.FromBytes(content))
	if err := errors.Join(draft.Keep(nil), draft.Close()); err != nil {
		t.Fatal(err)
	}
	draft.Check(0, large)
	wantPieces(t, draft, cache.Span{To: 9 * pieceSize})
}

func TestOfTwoDraftsTheOneWithMoreBytesStays(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, Options{}).blobs
	content := pattern("content", large)
	for _, pieces := range []int{2, 5, 3} {
		draft := create(t, b, descriptor("content", large))
		writeAt(t, draft, content[:pieces*pieceSize], 0)
		if err := draft.Save(nil); err != nil {
			t.Fatal(err)
		}
	}
	after := afterKill(t, dir).blobs
	wantDrafts(t, after, 2)
	wantPieces(t, resume(t, after, digest.FromBytes(content)), cache.Span{To: 5 * pieceSize})
}

func TestAKeptDraftWithoutItsFilesIsNotFound(t *testing.T) {
	for _, lost := range []string{"", mapSuffix} {
		c, content, file := keptOnDisk(t, Options{})
		removeFile(t, file+lost)
		if _, _, err := c.blobs.Resume(t.Context(), digest.FromBytes(content)); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("Resume: %v, want ErrNotFound", err)
		}
		wantDrafts(t, c.blobs, 0)
		if len(c.blobs.AllKept()) != 0 {
			t.Error("it is still kept")
		}
	}
}

func TestASaveDoesNotHoldUpAnything(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	draft, content, pieces := begun(t, c.blobs)
	waits, hold := make(chan struct{}), make(chan struct{})
	c.blobs.faults.sync = func() error { close(waits); <-hold; return nil }
	ends := make(chan error, 2)
	go func() { ends <- draft.Save([]byte("second")) }()
	<-waits
	at := draft.Written()
	if _, err := draft.Write(content[at : at+1000]); err != nil {
		t.Error(err)
	}
	writeAt(t, draft, content[9*pieceSize:], 9*pieceSize)
	writeAt(t, draft, content[at+1000:at+2000], at+1000)
	if n, err := draft.Advance(1000); n != 1000 || err != nil {
		t.Errorf("Advance = %d, %v", n, err)
	}
	if n := draft.Check(9*pieceSize, 10); n != 10 {
		t.Errorf("Check = %d", n)
	}
	before := afterKill(t, dir).blobs
	if kept, _ := before.Kept(digest.FromBytes(content)); string(kept.Note) != "note" || kept.Bytes != cache.Spans(pieces).Len() {
		t.Errorf("kept before the disk has it: %+v", kept)
	}
	// Nothing is left behind by a Save that ends while the draft is closed.
	go func() { ends <- draft.Close() }()
	close(hold)
	if err := errors.Join(<-ends, <-ends); err != nil {
		t.Error(err)
	}
	wantDrafts(t, c.blobs, 0)
}

func TestASaveClaimsOnlyWhatWasWrittenBefore(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	draft, content, pieces := begun(t, c.blobs)
	c.blobs.faults.sync = func() error {
		writeAt(t, draft, content[9*pieceSize:], 9*pieceSize)
		return nil
	}
	if err := draft.Save([]byte("second")); err != nil {
		t.Fatal(err)
	}
	resumed := resume(t, afterKill(t, dir).blobs, digest.FromBytes(content))
	wantPieces(t, resumed, pieces...)
}

func TestASaveThatFails(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	draft, content, pieces := begun(t, c.blobs)
	writeAt(t, draft, content[9*pieceSize:], 9*pieceSize)
	c.blobs.faults.sync = func() error { return syscall.ENOSPC }
	for what, save := range map[string]func([]byte) error{"Save": draft.Save, "Keep": draft.Keep} {
		if err := save([]byte("second")); !errors.Is(err, cache.ErrFull) {
			t.Errorf("%s: %v, want ErrFull", what, err)
		}
	}
	if len(c.blobs.AllKept()) != 0 {
		t.Error("it is kept without being durable")
	}
	// The map before it still counts.
	resumed := resume(t, afterKill(t, dir).blobs, digest.FromBytes(content))
	wantPieces(t, resumed, pieces...)
	c.blobs.faults.sync = nil
	if err := draft.Save([]byte("third")); err != nil {
		t.Errorf("Save with room again: %v", err)
	}
	if err := draft.Close(); err != nil {
		t.Fatal(err)
	}
	wantDrafts(t, c.blobs, 0)
}

func TestACommitRemovesWhatWasSaved(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	kept, content, _ := begun(t, c.blobs)
	if err := errors.Join(kept.Keep(nil), kept.Close()); err != nil {
		t.Fatal(err)
	}
	draft, _, _ := begun(t, c.blobs)
	c.blobs.faults.rename = func() error { return syscall.ENOSPC }
	for at := draft.Written(); at < large; at = draft.Written() {
		pieces := draft.Pieces()
		missing := pieces.Missing(cache.Span{From: at, To: large})
		if _, err := draft.Write(content[missing.From:missing.To]); err != nil {
			t.Fatal(err)
		}
		if _, err := draft.Advance(large); err != nil {
			t.Fatal(err)
		}
	}
	if err := draft.Commit(); !errors.Is(err, cache.ErrFull) {
		t.Errorf("Commit: %v, want ErrFull", err)
	}
	wantDrafts(t, c.blobs, 4) // nothing is lost by a commit that failed
	c.blobs.faults.rename = nil
	finish(t, c.blobs, draft, content)
	wantDrafts(t, c.blobs, 0)
}

func TestADraftWhoseCommitFailedAtTheEndIsNotKept(t *testing.T) {
	b := open(t, t.TempDir(), Options{}).blobs
	content := pattern("content", 1000)
	draft := create(t, b, descriptor("content", 1000))
	if _, err := draft.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := draft.(*draftOnDisk).publish(); err != nil { // Commit does one thing more
		t.Fatal(err)
	}
	if err := draft.Keep(nil); !errors.Is(err, errPublished) {
		t.Errorf("Keep: %v", err)
	}
	if _, _, err := b.Resume(t.Context(), digest.FromBytes(content)); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("Resume: %v, want ErrNotFound", err)
	}
	if err := draft.Close(); err != nil {
		t.Fatal(err)
	}
	wantSound(t, openKept(t, b, digest.FromBytes(content)))
	wantDrafts(t, b, 0)
}

func TestAFileThatGrewIsPublishedWithoutItsRest(t *testing.T) {
	c, content, file := keptOnDisk(t, Options{})
	grown, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := grown.WriteAt(make([]byte, 1000), large); err != nil {
		t.Fatal(err)
	}
	grown.Close()
	finish(t, c.blobs, resume(t, c.blobs, digest.FromBytes(content)), content)
}

func TestADamagedMap(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	draft, content, _ := begun(t, c.blobs)
	path := fileOf(draft)
	whole, err := os.ReadFile(path + mapSuffix)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeMap(whole); err != nil {
		t.Fatalf("the map is not read back: %v", err)
	}
	damaged := map[string][]byte{"longer": append(bytes.Clone(whole), 0)}
	for n := range whole {
		if _, err := decodeMap(whole[:n]); !errors.Is(err, errNoMap) {
			t.Errorf("a map of the first %d of %d bytes: %v", n, len(whole), err)
		}
		for bit := range 8 {
			wrong := bytes.Clone(whole)
			wrong[n] ^= 1 << bit
			if _, err := decodeMap(wrong); !errors.Is(err, errNoMap) {
				t.Errorf("a map with bit %d of byte %d turned over: %v", bit, n, err)
			}
		}
		if n%20 == 0 {
			damaged["cut"], damaged["flipped"] = whole[:n], bytes.Clone(whole)
			damaged["flipped"][n] ^= 0x80
		}
	}
	for name, wrong := range damaged {
		writeFile(t, path+mapSuffix, string(wrong))
		after := afterKill(t, dir).blobs
		wantDrafts(t, after, 0)
		if len(after.AllKept()) != 0 {
			t.Errorf("a draft with a map that is %s is kept", name)
		}
		if _, _, err := after.Resume(t.Context(), digest.FromBytes(content)); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("Resume with a map that is %s: %v, want ErrNotFound", name, err)
		}
	}
}

func TestNoFileIsFollowedOutOfTheFolder(t *testing.T) {
	dir := t.TempDir()
	draft, _, _ := begun(t, open(t, dir, Options{}).blobs)
	path := fileOf(draft)
	dir = copyFolder(t, dir)
	target := filepath.Join(t.TempDir(), "target")
	inCopy := filepath.Join(dir, "drafts", filepath.Base(path))
	renameFile(t, inCopy, target)
	if err := os.Symlink(target, inCopy); err != nil {
		t.Fatal(err)
	}
	after := open(t, dir, Options{}).blobs
	wantDrafts(t, after, 0)
	if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) {
		t.Error("the target of the link was removed")
	}
}
