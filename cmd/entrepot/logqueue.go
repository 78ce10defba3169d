package main

import (
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/entrepot/entrepot/config"
)

const (
	// logQueueSize is how many lines may wait to be written: a megabyte or two.
	// logQueueBytes bounds them where they are long.
	logQueueSize  = 4096
	logQueueBytes = 4 << 20
	// logPause is how long the writer gathers lines after it has written some. A
	// line that comes alone is written at once.
	logPause = 20 * time.Millisecond
	// logDrainTimeout is how long the program waits at its end for the last
	// lines to be written.
	logDrainTimeout = 2 * time.Second
	// keptLogBuffer is the largest buffer that is used again, in bytes.
	keptLogBuffer = 256 << 10
)

// newQueuedLogger returns a logger that writes what newLogger's does and never
// blocks. A paused terminal, a pipe that nobody reads or a disk that hangs would
// otherwise delay every response, even to /v2/. Lines that do not fit into the
// queue are dropped and counted. The queue's end writes the remaining lines.
func newQueuedLogger(w io.Writer, c config.Log) (*slog.Logger, *logQueue) {
	q := &logQueue{wake: make(chan struct{}, 1), crowded: make(chan struct{}, 1), closing: make(chan struct{}), drained: make(chan struct{})}
	go q.run(w, newLogger(w, c))
	return slog.New(newLineHandler(q, newLogger(q, c).Handler(), c.Format == "json")), q
}

// logQueue is a writer that gathers lines for another writer.
type logQueue struct {
	mu      sync.Mutex
	waiting []byte
	lines   int // of waiting
	dropped int // since that was logged last

	lost    atomic.Int64  // all that were dropped
	wake    chan struct{} // has an element when there is something to write
	crowded chan struct{} // has one when the writer must not pause
	closing chan struct{}
	drained chan struct{}
}

// Write queues one line, or drops it if the queue is full.
func (q *logQueue) Write(line []byte) (int, error) {
	q.mu.Lock()
	if q.lines == logQueueSize || len(q.waiting)+len(line) > logQueueBytes {
		q.dropped++
		q.mu.Unlock()
		q.lost.Add(1)
		return len(line), nil
	}
	q.waiting = append(q.waiting, line...)
	q.lines++
	lines := q.lines
	q.mu.Unlock()
	switch lines {
	case 1:
		notify(q.wake)
	case logQueueSize / 4:
		notify(q.crowded)
	}
	return len(line), nil
}

// notify sends to a channel of length one without blocking.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes the lines until the end, and logs how many were dropped.
func (q *logQueue) run(w io.Writer, log *slog.Logger) {
	defer close(q.drained)
	pause := time.NewTimer(logPause)
	pause.Stop()
	var spare []byte
	for ended := false; !ended; {
		select {
		case <-q.wake:
		case <-q.closing:
			ended = true
		}
		spare = q.write(w, log, spare)
		if ended {
			return
		}
		pause.Reset(logPause)
		select {
		case <-pause.C:
		case <-q.crowded:
		case <-q.closing:
		}
		pause.Stop()
	}
}

// write writes what waits, and then how many lines were dropped up to then. It
// returns a buffer to use again.
func (q *logQueue) write(w io.Writer, log *slog.Logger, spare []byte) []byte {
	q.mu.Lock()
	lines := q.waiting
	q.waiting, q.lines = spare[:0], 0
	q.mu.Unlock()
	if len(lines) > 0 {
		_, _ = w.Write(lines) // there is nowhere to report an error
	}
	q.mu.Lock()
	dropped := q.dropped
	q.dropped = 0
	q.mu.Unlock()
	if dropped > 0 {
		log.Warn("log lines were dropped, because nothing read the log for a while", "lines", dropped)
	}
	if cap(lines) > keptLogBuffer {
		return nil
	}
	return lines
}

// end waits until all queued lines are written, or until logDrainTimeout.
func (q *logQueue) end() {
	close(q.closing)
	late := time.NewTimer(logDrainTimeout)
	defer late.Stop()
	select {
	case <-q.drained:
	case <-late.C:
	}
}
