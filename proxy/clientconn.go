package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/entrepot/entrepot/upstream"
)

// The reasons for which a client is disconnected in the middle of an answer.
var (
	errClientIdle  = errors.New("the client was disconnected: it has read nothing for as long as client_idle allows")
	errPlaceNeeded = errors.New("the client was disconnected: it has read nothing for over a minute, and others needed its place")
	errClientDead  = errors.New("the client's host no longer acknowledges anything")
)

// clientConn is a connection of a client. It knows since when a write waits,
// which is since when the client has read nothing. It is still an io.ReaderFrom
// of TCP, and so has sendfile: to wrap it as netutil.LimitListener would do
// hides that.
type clientConn struct {
	*headerConn
	reason atomic.Pointer[error]
	// givenUp means that the kernel is about to end the connection. Whoever uses
	// it then first learns why, which may be the server's own reader.
	givenUp atomic.Bool
}

func (c *clientConn) Write(b []byte) (int, error) {
	n, err := c.headerConn.Write(b)
	c.wrote(err)
	return n, err
}

func (c *clientConn) ReadFrom(src io.Reader) (int64, error) {
	n, err := c.headerConn.ReadFrom(src)
	c.wrote(err)
	return n, err
}

// wrote notes the end of a write: after one that was successful, the client is
// there.
func (c *clientConn) wrote(err error) {
	if err == nil && c.givenUp.Load() {
		c.isThere()
	}
}

// isThere is called when a client that was given up turns out to be there.
func (c *clientConn) isThere() {
	takeBack(c.TCPConn)
	c.givenUp.Store(false)
}

// lookWhetherGone gives up a client whose host is silent. What the kernel has
// ended by now stays given up: nobody may have learned of it yet.
func (c *clientConn) lookWhetherGone(most silences) {
	silent, known := isSilent(c.TCPConn, most)
	switch {
	case silent:
		giveUp(c.TCPConn, most)
		c.givenUp.Store(true)
	case known && c.givenUp.Load():
		c.isThere()
	}
}

// stalledFor is how long a write has been waiting.
func (c *clientConn) stalledFor() time.Duration {
	since := c.writing.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(time.Now().UnixNano() - since)
}

// cut breaks the connection for a reason.
func (c *clientConn) cut(reason error) {
	c.reason.CompareAndSwap(nil, &reason)
	go resetConnection(c) // may block
}

// clientConnOf returns the connection beneath TLS; nil if it is of another kind.
func clientConnOf(conn net.Conn) *clientConn {
	if overTLS, ok := conn.(*tls.Conn); ok {
		conn = overTLS.NetConn()
	}
	c, _ := conn.(*clientConn)
	return c
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, clientConnOf(conn))
}

// cutReason says why this process disconnected the client, or found that it is
// gone. It returns nil if the client left.
func (w *response) cutReason(r *http.Request, err error) error {
	c, _ := r.Context().Value(connKey{}).(*clientConn)
	if c != nil {
		if reason := c.reason.Load(); reason != nil {
			return *reason
		}
	}
	switch {
	case errors.Is(err, upstream.ErrUnavailable), errors.Is(err, upstream.ErrTimeout):
		return nil // it was not the client
	case errors.Is(err, os.ErrDeadlineExceeded), r.ProtoMajor > 1 && !w.client.at.IsZero() && !time.Now().Before(w.client.at):
		return errClientIdle
	case errors.Is(err, syscall.ETIMEDOUT), c != nil && c.givenUp.Load():
		return errClientDead
	}
	return nil
}

// cutLabel is the reason as a label of a metric.
func cutLabel(reason error) string {
	switch {
	case errors.Is(reason, errClientIdle):
		return "idle"
	case errors.Is(reason, errPlaceNeeded):
		return "place"
	}
	return "dead"
}
