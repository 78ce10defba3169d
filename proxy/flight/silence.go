package flight

import (
	"fmt"
	"time"

	"github.com/entrepot/entrepot/upstream"
)

// readerWait is how long a reader waits for its next byte once that is what a
// request is to bring, and in any case while the download receives next to
// nothing. A client that has waited that long has something better to do, and
// finds what is there when it comes back.
//
// A reader whose turn has not come, far ahead of a source without ranges or behind
// the parts of others, waits for as long as the download gets on: it would come
// back to the same place, and some clients give up after a few times.
const readerWait = 2 * time.Minute

// errSilence ends the wait of a reader. It does not end the download.
var errSilence = fmt.Errorf("%w: nothing has arrived for %s", upstream.ErrTimeout, readerWait)

// silence is how long a reader has waited for one byte. The zero value has not
// begun; a nil one never ends.
type silence struct {
	off      int64 // of that byte
	timer    *time.Timer
	turn     bool  // a request has come to it
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
	if !s.turn && f.plan.isAt(s.off) {
		s.turn = true
		s.timer.Reset(readerWait)
	}
	return s.timer.C
}

// isOver says whether a silence that is too long is the source's.
func (s *silence) isOver(f *Flight) bool {
	if s.turn {
		return true
	}
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
