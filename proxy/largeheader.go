package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// ownHeader is how many bytes of a header each connection may send without
	// asking. Nearly all headers are smaller.
	ownHeader = 32 << 10
	// maxLargeHeaders is how many connections may send a larger header at once.
	// Each is given maxHeader, of which net/http makes up to 27 times as much
	// memory, if it has a hundred thousand fields: with 16 of them 432 MiB, with
	// headers of one large field 96 MiB, however many connections there are.
	// The others have ownHeader each, as they have had before any was larger.
	//
	// With HTTP/2 the first header after a pause is counted, and not those that
	// come while others are answered. A connection has one of them at a time in
	// its hands, of maxHeader at most, and in return no longer the megabyte for
	// a frame that net/http gives it by default (see HTTPServer).
	maxLargeHeaders = 16
	// largeHeaderTimeout is how long a connection waits for its turn. A header
	// of 64 KiB is there within milliseconds, and readHeaderTimeout ends those
	// that take too long.
	largeHeaderTimeout = 5 * time.Second
)

// errHeaderTurn makes net/http answer with 400 and close the connection.
var errHeaderTurn = errors.New("too many clients are sending a large header")

// headerTurns gives the connections that send a large header their turn.
type headerTurns struct {
	taken   chan struct{}
	timeout time.Duration
}

func newHeaderTurns(n int) *headerTurns {
	return &headerTurns{make(chan struct{}, n), largeHeaderTimeout}
}

// wrap returns conn with a limit. It is still an io.ReaderFrom, and so has
// sendfile.
func (t *headerTurns) wrap(conn *net.TCPConn) *headerConn {
	return &headerConn{patientConn: newPatientConn(conn), turns: t, inHeader: true}
}

// headerConn is a connection that reads more than ownHeader of a header only
// when it has a turn.
type headerConn struct {
	*patientConn
	turns *headerTurns

	mu       sync.Mutex
	inHeader bool // what is read belongs to a header
	read     int  // of it, in bytes
	hasTurn  bool
}

func (c *headerConn) Read(b []byte) (int, error) {
	if c.needsTurn() {
		if err := c.waitForTurn(); err != nil {
			return 0, err
		}
	}
	n, err := c.patientConn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read += n
	return n, err
}

// ReadFrom has the kernel send files.
func (c *headerConn) ReadFrom(src io.Reader) (int64, error) {
	if err := c.beginWaiting(); err != nil {
		return 0, err
	}
	defer c.endWaiting()
	if limited, ok := src.(*io.LimitedReader); ok {
		if sent, err := sendFile(c.TCPConn, limited); !errors.Is(err, errors.ErrUnsupported) {
			return sent, err
		}
	}
	return c.TCPConn.ReadFrom(src)
}

func (c *headerConn) needsTurn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inHeader && c.read >= ownHeader && !c.hasTurn
}

// waitForTurn is called by one goroutine at a time, the one that reads.
func (c *headerConn) waitForTurn() error {
	timer := time.NewTimer(c.turns.timeout)
	defer timer.Stop()
	select {
	case c.turns.taken <- struct{}{}:
	case <-timer.C:
		return errHeaderTurn
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inHeader {
		c.hasTurn = true
		return nil
	}
	<-c.turns.taken // it was closed, or, with HTTP/2, is in use by now
	return nil
}

// track notes where the headers of a connection begin and end.
func (c *headerConn) track(state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inHeader = state == http.StateNew || state == http.StateIdle
	c.read = 0
	if c.hasTurn {
		c.hasTurn = false
		<-c.turns.taken
	}
}
