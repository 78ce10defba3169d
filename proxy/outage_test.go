package proxy_test

import (
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/cache/disk/files/filestest"
	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// breakable is a mirror over a disk that can be broken, after a restart: what it
// keeps was not read by this process. app:1 is kept, with a large layer and a
// small one, and other:1 is not.
type breakable struct {
	*mirror
	disk  *filestest.Disk
	w     *watched
	kept  []string // paths
	fresh []string
	has   map[string][]byte
	dir   string
}

func newBreakable(t *testing.T, change func(*setup)) *breakable {
	t.Helper()
	fake := upstreamtest.New(t)
	b := &breakable{disk: filestest.Over(disk.OS()), has: map[string][]byte{}}
	add := func(repo string, seed byte) (paths []string) {
		large, small := upstreamtest.Bytes(seed, 3<<20+77), upstreamtest.Bytes(seed+1, 10<<10)
		_, m := fake.AddImage(repo, "1", large, small)
		for i, layer := range [][]byte{large, small} {
			path := "/v2/" + repo + "/blobs/" + m.Layers[i].Digest.String()
			b.has[path] = layer
			paths = append(paths, path)
		}
		return paths
	}
	b.kept, b.fresh = add("app", 1), add("other", 3)
	s := setup{dir: t.TempDir(), files: b.disk}
	before := watch(&s)
	first := newMirror(t, fake, s)
	for _, path := range append([]string{"/v2/app/manifests/1"}, b.kept...) {
		if a := first.get(path); a.status != http.StatusOK || a.broken != nil {
			t.Fatalf("%s: %d %v", path, a.status, a.broken)
		}
	}
	for range b.kept {
		<-before.landed
	}
	first.stop()
	s.options = nil
	s.downAfter = 2 * time.Second
	if change != nil {
		change(&s)
	}
	b.dir = s.dir
	b.w = watch(&s)
	b.mirror = newMirror(t, fake, s)
	t.Cleanup(func() { // before the mirror is closed, which has records to write
		b.disk.Mend()
		if over := b.store.Outage(); over != nil {
			<-over
		}
	})
	return b
}

// patient is for faults that are not about an outage: a machine that is busy may
// take longer than a test wants to wait.
func patient(s *setup) { s.downAfter = time.Hour }

// pull asks for a path with n clients at once.
func (b *breakable) pull(t *testing.T, path string, n int) {
	t.Helper()
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			if err := rightBytes(b.get(path), b.has[path]); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		})
	}
	group.Wait()
}

// TestAHungDiskIsPassedBy: ten clients at once get what is kept and what is not,
// and the upstream sends each blob once.
func TestAHungDiskIsPassedBy(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]filestest.Operations{"reads": filestest.Reads, "all": filestest.All} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBreakable(t, nil)
			if a := b.get("/v2/app/manifests/1"); a.status != http.StatusOK { // now it is in memory
				t.Fatal(a.status)
			}
			before := b.fake.BlobBytes()
			b.disk.Hang(kind)
			began := time.Now()
			want := int64(0)
			for _, path := range append(append([]string{}, b.kept...), b.fresh...) {
				b.pull(t, path, 10)
				want += int64(len(b.has[path]))
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
			if got := b.fake.BlobBytes() - before; got > 4*want {
				t.Errorf("the upstream sent %d bytes for %d: a client that comes when a download is over starts another", got, want)
			}
			asked := time.Now()
			if a := b.get("/v2/app/manifests/1"); a.status != http.StatusOK || time.Since(asked) > time.Second {
				t.Errorf("what is in memory: %d after %s", a.status, time.Since(asked))
			}
			over := b.store.Outage()
			if over == nil {
				t.Fatal("the disk is not down")
			}
			b.disk.Mend()
			<-over
			before = b.fake.BlobBytes()
			for _, path := range b.kept {
				b.pull(t, path, 3)
			}
			if got := b.fake.BlobBytes(); got != before {
				t.Errorf("mended, %d bytes of what is kept were fetched", got-before)
			}
			for range 2 {
				b.pull(t, b.fresh[0], 1)
				b.wantLanded()
			}
			b.fake.Stop()
			b.pull(t, b.fresh[0], 1) // it is kept again
		})
	}
}

// wantLanded waits for the downloads that are under way.
func (b *breakable) wantLanded() {
	for {
		select {
		case <-b.w.landed:
		case <-time.After(200 * time.Millisecond):
			return
		}
	}
}

// TestAHungDiskInMidBodyIsPassedBy: a client that has some of a kept blob gets
// the rest from the upstream, and no byte twice.
func TestAHungDiskInMidBodyIsPassedBy(t *testing.T) {
	for name, kind := range map[string]filestest.Operations{"kept": filestest.Reads, "kept, all": filestest.All} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBreakable(t, nil)
			b.whenSome(t, b.kept[0], func() { b.disk.Hang(kind &^ filestest.Sends) })
			if got := b.fake.BlobBytes(); got > 2*(3<<20+77)+20<<10 {
				t.Errorf("the upstream sent %d bytes", got)
			}
		})
	}
}

// whenSome asks for a path, calls do after the first bytes, and reads the rest.
func (b *breakable) whenSome(t *testing.T, path string, do func()) {
	t.Helper()
	resp, err := b.client.Get(b.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := make([]byte, 0, len(b.has[path]))
	buf := make([]byte, 1000)
	for len(got) < len(b.has[path]) {
		n, err := resp.Body.Read(buf)
		got = append(got, buf[:n]...)
		if do != nil {
			do()
			do = nil
			buf = make([]byte, 64<<10)
		}
		if err != nil {
			break
		}
	}
	if string(got) != string(b.has[path]) {
		t.Errorf("%s: %d bytes, other than those of the blob", path, len(got))
	}
}

// TestWhereTheUpstreamIsAwayClientsWaitForTheDisk: the disk may have it.
func TestWhereTheUpstreamIsAwayClientsWaitForTheDisk(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*breakable) func(*setup){
		"away": func(b *breakable) func(*setup) { return nil },
		"offline": func(*breakable) func(*setup) {
			return func(s *setup) { s.options = func(o *pulling.Options) { o.Rules.Offline = true } }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBreakable(t, away(nil))
			b.fake.Stop()
			b.disk.Hang(filestest.All)
			done := make(chan struct{})
			go func() {
				defer close(done)
				b.pull(t, b.kept[0], 3)
				if a := b.get("/v2/app/manifests/1"); a.status != http.StatusOK {
					t.Errorf("manifest: %d", a.status)
				}
			}()
			select {
			case <-done:
				t.Error("they did not wait")
			case <-time.After(4 * time.Second):
			}
			b.disk.Mend()
			<-done
		})
	}
}

// TestReadsThatFailAreReplaced: three clients of three get what is kept, and
// what is not, and it is kept when the disk is mended.
func TestReadsThatFailAreReplaced(t *testing.T) {
	b := newBreakable(t, patient)
	b.disk.Fail(filestest.Reads, syscall.EIO)
	before := b.fake.BlobBytes()
	want := int64(0)
	for _, path := range append(append([]string{}, b.kept...), b.fresh...) {
		b.pull(t, path, 3)
		want += int64(len(b.has[path]))
	}
	if got := b.fake.BlobBytes() - before; got > 4*want {
		t.Errorf("the upstream sent %d bytes for %d", got, want)
	}
	if a := b.get("/v2/app/manifests/1"); a.status != http.StatusOK {
		t.Errorf("manifest: %d", a.status)
	}
	b.disk.Mend()
	b.wantLanded()
	for _, path := range append(append([]string{}, b.kept...), b.fresh...) {
		b.pull(t, path, 1)
	}
	b.wantLanded()
	b.fake.Stop()
	for _, path := range append(append([]string{}, b.kept...), b.fresh...) {
		b.pull(t, path, 1)
	}
}

func TestReadsThatFailInMidBodyAreReplaced(t *testing.T) {
	for name, of := range map[string]func(*breakable) string{
		"kept": func(b *breakable) string { return b.kept[0] },
		"new":  func(b *breakable) string { return b.fresh[0] },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBreakable(t, patient)
			for range 3 {
				b.whenSome(t, of(b), func() { b.disk.Fail(filestest.Reads, syscall.EIO) })
				b.disk.Mend()
			}
		})
	}
}
