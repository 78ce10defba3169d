package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

const (
	fullBlob    = 210_000_000
	fullClients = 10
	fullSlow    = 3
	// slowClient is what those of them that are slow read in a second.
	slowClient = 2 << 20
	// fullPace is how long the others may take: at the pace of the slow ones it
	// would be 100 s.
	fullPace = 15 * time.Second
	// fullResident is what the mirror may have in memory, whose configuration
	// leaves 64 MiB to small content.
	fullResident = 128 << 20
)

// TestAFullDiskMakesNobodySlow has ten clients pull a blob that the disk has no
// room for, some of them slowly.
func TestAFullDiskMakesNobodySlow(t *testing.T) {
	s := readSuite(t)
	up := s.startUpstream(t, s.folder(t))
	blob := s.pushKnown(t, up.host, "full/blob", fullBlob)
	m := s.newMirror(t, up)
	dir := filepath.Join(m.dir, "cache")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	mount(t, "-t", "tmpfs", "-o", "size=64m", "tmpfs", dir)
	writeFile(t, m.config(), fmt.Sprintf("listen: %s\nadmin: %s\ncache: {dir: %s, max_size: 10GiB, min_free: 0, memory: 64MiB}\n"+
		"upstreams: [{name: docker.io, default: true, endpoints: [\"http://%s\"]}]\n", m.address, m.admin, dir, up.host))
	m.start(t)
	up.take()

	began := time.Now()
	var fast, all sync.WaitGroup
	othersLeft := make(chan struct{})
	var mu sync.Mutex
	var slowest time.Duration
	for i := range fullClients {
		pull := func(pace io.Writer) {
			if err := readAgainst(m, blob, pace); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		}
		if i < fullSlow {
			all.Go(func() { pull(&paced{rate.NewLimiter(slowClient, 64<<10), othersLeft}) })
			continue
		}
		fast.Go(func() {
			pull(io.Discard)
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, time.Since(began))
		})
	}
	fast.Wait()
	close(othersLeft)
	all.Wait()
	if slowest > fullPace {
		t.Errorf("the others took %s, and may take %s", slowest, fullPace)
	}
	asked := up.settled(t)
	if sent := float64(asked.bytes()) / fullBlob; sent > 2.02 {
		t.Errorf("the upstream sent %.2f of the blob:\n%s", sent, asked)
	}
	resident := peakResident(t, m)
	if resident > fullResident {
		t.Errorf("%d MiB are resident, and %d may be", resident>>20, fullResident>>20)
	}
	t.Logf("the others took %s at most, all %s; the upstream sent %.2f of the blob; %d MiB were resident",
		slowest.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), float64(asked.bytes())/fullBlob, resident>>20)
}

// paced takes what is written to it at a rate, until it may go on as it likes.
type paced struct {
	limit *rate.Limiter
	free  <-chan struct{}
}

func (p *paced) Write(b []byte) (int, error) {
	wait := p.limit.ReserveN(time.Now(), len(b)).Delay()
	select {
	case <-p.free:
	case <-time.After(wait):
	}
	return len(b), nil
}

// readAgainst reads a blob, and holds each byte against what was pushed.
func readAgainst(m *mirror, b *knownBlob, pace io.Writer) error {
	resp, err := http.Get("http://" + m.address + b.path())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", resp.Status)
	}
	part := make([]byte, 64<<10)
	for read := 0; ; {
		n, err := io.ReadFull(resp.Body, part)
		if !bytes.HasPrefix(b.content[read:], part[:n]) {
			return fmt.Errorf("other bytes at %d", read)
		}
		read += n
		if err != nil {
			if read == len(b.content) {
				return nil
			}
			return fmt.Errorf("%d bytes: %w", read, err)
		}
		if _, err := pace.Write(part[:n]); err != nil {
			return err
		}
	}
}

// peakResident is the most that the mirror has had in memory, in bytes, without
// the files that are mapped.
func peakResident(t *testing.T, m *mirror) (n int64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.process.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "\nVmHWM:")
	if _, err := fmt.Sscan(after, &n); err != nil {
		t.Fatal(err)
	}
	return n << 10
}
