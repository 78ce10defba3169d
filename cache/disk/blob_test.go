package disk

import (
	"errors"
	"io"
	"testing"
)

func TestReadersOfADraftWithoutANameHaveTheirOwnPosition(t *testing.T) {
	b := open(t, t.TempDir(), Options{}).blobs
	draft := create(t, b, descriptor("content", 1000))
	content := pattern("content", 1000)
	if _, err := draft.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := draft.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), descriptor("content", 1000).Digest); err != nil {
		t.Fatal(err)
	}
	var readers []io.ReadSeekCloser
	for range 2 {
		reader, err := draft.Reader()
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		readers = append(readers, reader)
	}
	for at := 0; at < 1000; at += 100 {
		for i, reader := range readers {
			piece := make([]byte, 100)
			if _, err := io.ReadFull(reader, piece); err != nil || string(piece) != string(content[at:at+100]) {
				t.Errorf("reader %d at %d: %v, other bytes", i, at, err)
			}
		}
	}
	for i, reader := range readers {
		if n, err := reader.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("reader %d at the end: %d, %v", i, n, err)
		}
		for _, seek := range []struct {
			offset int64
			whence int
			want   int64
		}{{-10, io.SeekEnd, 990}, {5, io.SeekCurrent, 995}, {10, io.SeekStart, 10}} {
			if at, err := reader.Seek(seek.offset, seek.whence); at != seek.want || err != nil {
				t.Errorf("reader %d seeks to %d, %v, want %d", i, at, err, seek.want)
			}
		}
		if at, err := reader.Seek(-11, io.SeekCurrent); err == nil {
			t.Errorf("reader %d seeks before the start, to %d", i, at)
		}
		if rest, err := io.ReadAll(reader); err != nil || string(rest) != string(content[10:]) {
			t.Errorf("reader %d from 10: %d bytes, %v", i, len(rest), err)
		}
	}
}
