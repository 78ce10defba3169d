package main

import (
	"bytes"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/entrepot/entrepot/config"
)

const (
	// logQueueSize is how many lines may wait to be written: a megabyte or two.
	logQueueSize = 4096
	// logDrainTimeout is how long the program waits at its end for the last
	// lines to be written.
	logDrainTimeout = 2 * time.Second
)

// newQueuedLogger returns a logger like newLogger's that never blocks. A paused
// terminal, a pipe that nobody reads or a disk that hangs would otherwise delay
// every response, even to /v2/. Lines that do not fit into the queue are
// dropped and counted. end writes the remaining lines.
func newQueuedLogger(w io.Writer, c config.Log) (log *slog.Logger, end func()) {
	q := &logQueue{lines: make(chan []byte, logQueueSize), closing: make(chan struct{}), drained: make(chan struct{})}
	go q.run(w, newLogger(w, c))
	return newLogger(q, c), q.end
}

// logQueue is a writer that queues lines for another writer.
type logQueue struct {
	lines   chan []byte
	dropped atomic.Int64
	closing chan struct{}
	drained chan struct{}
}

// Write queues one line, or drops it if the queue is full.
func (q *logQueue) Write(line []byte) (int, error) {
	select {
	case q.lines <- bytes.Clone(line):
	default:
		q.dropped.Add(1)
	}
	return len(line), nil
}

// run writes the lines until the end, and logs how many were dropped.
func (q *logQueue) run(w io.Writer, log *slog.Logger) {
	defer close(q.drained)
	write := func(line []byte) {
		_, _ = w.Write(line) // there is nowhere to report an error
		if n := q.dropped.Swap(0); n > 0 {
			log.Warn("log lines were dropped, because nothing read the log for a while", "lines", n)
		}
	}
	for {
		select {
		case line := <-q.lines:
			write(line)
		case <-q.closing:
			for {
				select {
				case line := <-q.lines:
					write(line)
				default:
					return
				}
			}
		}
	}
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
