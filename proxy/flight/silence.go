package flight

import (
	"fmt"
	"time"

	"github.com/entrepot/entrepot/upstream"
)

// readerWait is how long a reader waits for the next byte from a download that
// receives next to nothing. A client that has waited that long has something
// better to do, and finds what is there when it comes back.
const readerWait = 2 * time.Minute

// errSilence ends the wait of a reader. It does not end the download.
var errSilence = fmt.Errorf("%w: nothing has arrived for %s", upstream.ErrTimeout, readerWait)

// silence is how long a reader has waited for one byte. The zero value has not
// begun; a nil one never ends.
type silence struct {
	timer    *time.Timer
	received int64 // by the download, when it began
}

// begin returns what fires when it is too long. f.mu is held.
func (s *silence) begin(f *Flight) <-chan time.Time {
	if s == nil {
		return nil
	}
	if s.timer == nil {
		s.timer, s.received = time.NewTimer(readerWait), f.plan.have.Len()
	}
	return s.timer.C
}

// isOver says whether a silence that is too long is the source's. If the
// download receives something, the reader has to wait for its turn.
func (s *silence) isOver(f *Flight) bool {
	received := f.received()
	if received < s.received+idleBytes {
		return true
	}
	s.received = received
	s.timer.Reset(readerWait)
	return false
}

// received is how many bytes there are.
func (f *Flight) received() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.plan.have.Len()
}

func (s *silence) end() {
	if s.timer != nil {
		s.timer.Stop()
	}
}
