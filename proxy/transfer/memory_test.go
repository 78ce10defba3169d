package transfer_test

import (
	"bytes"
	"io"
	"log/slog"
	"runtime"
	"testing"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/transfer"
)

// onDisk has a mirror keep its content in a folder.
func onDisk(t *testing.T) func(*mirror.Options) {
	t.Helper()
	files, err := disk.Open(t.TempDir(), disk.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files.Close() })
	return func(opts *mirror.Options) { opts.Blobs, opts.Records = files.Blobs(), files.Records() }
}

func TestATransferTakesNoMemoryForBlobs(t *testing.T) {
	o := mirrortest.NewOrigin()
	out := outside{t, mirrortest.New(t, o, onDisk(t))}
	in := inside(t, onDisk(t))
	// allocated is by how much more is allocated for a layer of some size, to make
	// a bundle and to import it.
	allocated := func(tag string, size int) uint64 {
		o.Image("app", tag, mirrortest.Bytes(tag[0], size))
		out.pin(tag)
		var before, after runtime.MemStats
		plan, err := out.Plan(t.Context(), selected(t, nil, tag), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer plan.Close()
		runtime.ReadMemStats(&before)
		file, to := io.Pipe()
		go func() { to.CloseWithError(plan.Write(t.Context(), to)) }()
		if _, err := in.Import(t.Context(), file, transfer.ImportOptions{}, nil); err != nil {
			t.Error(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	allocated("a", 1<<20)
	small, large := allocated("b", 1<<20), allocated("c", 48<<20)
	if large > small+4<<20 {
		t.Errorf("%d bytes are allocated for a layer of 1 MiB, and %d for one of 48 MiB", small, large)
	}
	plan, err := out.Plan(t.Context(), selected(t, nil, "a", "b"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Close()
	var twice [2]bytes.Buffer
	for n := range twice {
		if err := plan.Write(t.Context(), &twice[n]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(twice[0].Bytes(), twice[1].Bytes()) {
		t.Error("the same plan makes other bytes")
	}
}
