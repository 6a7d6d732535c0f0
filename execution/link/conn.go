package link

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
)

// Conn is a connection to PID 1 of a pod. Until the pod has sent something, the errors of Read
// and Write wrap [ErrRejected] if it has rejected the server's certificate.
type Conn struct {
	*tls.Conn
	address  string
	answered atomic.Bool // the pod has sent something

	reading sync.Mutex // held for in
	in      *bufio.Reader
}

func newConn(conn *tls.Conn, address string) *Conn {
	const least = 16 // bytes: nearly all that is read goes past the buffer, which is here for Peek
	return &Conn{Conn: conn, address: address, in: bufio.NewReaderSize(conn, least)}
}

// Read implements [io.Reader].
func (c *Conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	n, err := c.in.Read(p)
	c.reading.Unlock()
	if n > 0 {
		c.answered.Store(true)
	}
	return n, c.explain(err)
}

// Write implements [io.Writer]. If a pod rejects the certificate, it closes the connection, so
// that a Write fails for that alone. The reason is in what the pod sent before.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if !c.answered.Load() && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
		c.reading.Lock()
		_, why := c.in.Peek(1) // it does not wait, since the connection has ended
		c.reading.Unlock()
		if _, found := alertOf(why); found {
			err = why
		}
	}
	return n, c.explain(err)
}

// explain returns an error as a sentence for operators, if it is the pod's rejection.
func (c *Conn) explain(err error) error {
	if _, found := alertOf(err); !found || c.answered.Load() {
		return err
	}
	return fmt.Errorf("%w at %s: pods must trust the CA in %s, and the certificate must be valid: %w", ErrRejected, c.address, CAFile, err)
}
