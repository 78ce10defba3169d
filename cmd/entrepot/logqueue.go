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
	// logQueue is how many lines wait for whoever takes the log: a megabyte or
	// two.
	logQueue = 4096
	// logPatience is how long the end waits for the last of them.
	logPatience = 2 * time.Second
)

// newPatientLogger logs like newLogger, but for one thing: whoever logs never
// waits for whoever takes the log. A terminal that is paused, a pipe that nobody
// reads or a disk that hangs would hold up every answer, /v2/ too. What is too
// much is lost, and counted. To end it writes what is left.
func newPatientLogger(w io.Writer, c config.Log) (log *slog.Logger, end func()) {
	q := &lineQueue{lines: make(chan []byte, logQueue), ending: make(chan struct{}), ended: make(chan struct{})}
	go q.run(w, newLogger(w, c))
	return newLogger(q, c), q.end
}

// lineQueue takes each line at once.
type lineQueue struct {
	lines  chan []byte
	lost   atomic.Int64
	ending chan struct{}
	ended  chan struct{}
}

// Write takes one line.
func (q *lineQueue) Write(line []byte) (int, error) {
	select {
	case q.lines <- bytes.Clone(line):
	default:
		q.lost.Add(1)
	}
	return len(line), nil
}

// run writes the lines, and to log how many are lost.
func (q *lineQueue) run(w io.Writer, log *slog.Logger) {
	defer close(q.ended)
	write := func(line []byte) {
		_, _ = w.Write(line) // nobody is left to tell
		if n := q.lost.Swap(0); n > 0 {
			log.Warn("lines of the log are lost: nobody took them for a while", "lines", n)
		}
	}
	for {
		select {
		case line := <-q.lines:
			write(line)
		case <-q.ending:
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

// end waits until what is there is written, or for so long that whoever takes
// the log has to be taken for dead.
func (q *lineQueue) end() {
	close(q.ending)
	late := time.NewTimer(logPatience)
	defer late.Stop()
	select {
	case <-q.ended:
	case <-late.C:
	}
}
