package httpapi

import (
	"errors"
	"log/slog"
	"net"
	"slices"
	"syscall"
	"time"
)

// acceptRetryTime is how long a listener waits until it asks the kernel again.
const acceptRetryTime = 100 * time.Millisecond

// retryingListener accepts again after the kernel had no room for a connection.
// [http.Server] retries for some of the reasons only, and ends for the others.
type retryingListener struct {
	net.Listener

	log    *slog.Logger
	closed chan struct{}
}

// NewRetryingListener returns a listener that outlasts a temporary lack of a resource
// of the kernel's, such as memory or places in epoll. Programs of the same user can
// use up all of it.
func NewRetryingListener(listener net.Listener, log *slog.Logger) net.Listener {
	return &retryingListener{Listener: listener, log: log, closed: make(chan struct{})}
}

// Accept waits for the next connection.
func (l *retryingListener) Accept() (net.Conn, error) {
	for logged := false; ; logged = true {
		conn, err := l.Listener.Accept()
		if err == nil || !isTemporary(err) {
			return conn, err
		}
		if !logged {
			l.log.Warn("cannot accept connections for now", "error", err)
		}
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case <-time.After(acceptRetryTime):
		}
	}
}

// Close closes the listener. It must be called once.
func (l *retryingListener) Close() error {
	close(l.closed)
	return l.Listener.Close()
}

// isTemporary reports whether accepting can succeed later.
func isTemporary(err error) bool {
	return slices.ContainsFunc([]syscall.Errno{
		syscall.ENOSPC, syscall.ENOMEM, syscall.ENOBUFS, syscall.EMFILE, syscall.ENFILE,
	}, func(number syscall.Errno) bool { return errors.Is(err, number) })
}
