package proxy

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// patientConn is a TCP connection whose deadlines are set where something waits
// for it. net/http sets eight of them for each request, and most are replaced
// before anything has waited: the request is there, and the kernel takes a small
// answer at once.
type patientConn struct {
	*net.TCPConn

	reads, writes deadline
	now           nowWriter
	// writing is since when a write waits, in nanoseconds since 1970; zero if none
	// does.
	writing atomic.Int64
}

func newPatientConn(conn *net.TCPConn) *patientConn {
	c := &patientConn{TCPConn: conn, reads: deadline{arm: conn.SetReadDeadline}, writes: deadline{arm: conn.SetWriteDeadline}}
	c.now.init(conn)
	return c
}

func (c *patientConn) SetReadDeadline(t time.Time) error  { return c.reads.set(t) }
func (c *patientConn) SetWriteDeadline(t time.Time) error { return c.writes.set(t) }

// SetDeadline sets both.
func (c *patientConn) SetDeadline(t time.Time) error {
	return errors.Join(c.reads.set(t), c.writes.set(t))
}

func (c *patientConn) Read(b []byte) (n int, err error) {
	if err := c.reads.begin(false); err != nil {
		return 0, err
	}
	defer c.reads.end()
	for {
		n, err = c.TCPConn.Read(b)
		if err == nil || !c.reads.endedEarly(err) {
			return n, err
		}
	}
}

// Write waits only for what the kernel does not take at once.
func (c *patientConn) Write(b []byte) (n int, err error) {
	c.now.mu.Lock()
	defer c.now.mu.Unlock()
	if n, err = c.now.write(b); n == len(b) || err != nil {
		return n, err
	}
	if err := c.beginWaiting(); err != nil {
		return n, err
	}
	defer c.endWaiting()
	m, err := c.TCPConn.Write(b[n:])
	return n + m, err
}

// beginWaiting sets the deadline of what is about to be written, and notes since
// when it waits.
func (c *patientConn) beginWaiting() error {
	if err := c.writes.begin(true); err != nil {
		return &net.OpError{Op: "write", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
	}
	c.writing.Store(time.Now().UnixNano())
	return nil
}

func (c *patientConn) endWaiting() {
	c.writing.Store(0)
	c.writes.end()
}

// nowWriter writes what the kernel takes without waiting.
type nowWriter struct {
	mu   sync.Mutex // held for a whole Write, so that what two write is not mixed
	conn *net.TCPConn
	raw  syscall.RawConn
	try  func(fd uintptr) (done bool) // made once
	b    []byte
	n    int
	err  error
}

func (w *nowWriter) init(conn *net.TCPConn) {
	w.conn = conn
	w.raw, _ = conn.SyscallConn() // fails only without a connection
	w.try = func(fd uintptr) bool {
		w.n, w.err = writeOnce(fd, w.b)
		return true
	}
}

// write returns how much of b the kernel has taken: nothing if a deadline has
// passed that was set for something else.
func (w *nowWriter) write(b []byte) (int, error) {
	w.b, w.n, w.err = b, 0, nil
	err := w.raw.Write(w.try)
	w.b = nil
	switch {
	case err != nil && errors.Is(err, os.ErrDeadlineExceeded):
		return 0, nil
	case err == nil && w.err != nil:
		return w.n, &net.OpError{Op: "write", Net: "tcp", Source: w.conn.LocalAddr(), Addr: w.conn.RemoteAddr(), Err: os.NewSyscallError("write", w.err)}
	}
	return w.n, err
}

// deadline is after when one direction of a connection does not wait any more.
type deadline struct {
	arm func(time.Time) error // the connection's own

	mu     sync.Mutex
	wanted time.Time // zero if there is none
	armed  time.Time // what the connection was given last
	spent  bool      // armed has passed
	waits  int       // how many wait, or are about to
}

func (d *deadline) set(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted = t
	if d.waits == 0 {
		return nil
	}
	return d.rearm()
}

// rearm gives the connection the deadline that is wanted. d.mu is held.
func (d *deadline) rearm() error {
	d.armed = d.wanted
	d.spent = !d.wanted.IsZero() && !time.Now().Before(d.wanted)
	return d.arm(d.wanted)
}

// begin is called before something that may wait. Unless the deadline has to be
// exact, an earlier one may stay: whoever finds that it has ended a wait too early
// goes on (endedEarly).
func (d *deadline) begin(exact bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.wanted.IsZero() && !time.Now().Before(d.wanted) {
		return os.ErrDeadlineExceeded
	}
	d.waits++
	switch {
	case d.armed == d.wanted:
		return nil
	case !exact && !d.spent && !d.armed.IsZero() && (d.wanted.IsZero() || d.armed.Before(d.wanted)):
		return nil
	}
	err := d.rearm()
	if err != nil {
		d.waits--
	}
	return err
}

func (d *deadline) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waits--
}

// endedEarly reports whether a wait was ended by a deadline that is none any more.
// The next one ends when it should.
func (d *deadline) endedEarly(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.wanted.IsZero() && !time.Now().Before(d.wanted) {
		d.spent = true
		return false
	}
	return d.rearm() == nil
}
