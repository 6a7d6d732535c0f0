package httpapi

import (
	"errors"
	"log/slog"
	"net"
	"slices"
	"syscall"
	"time"
)

// steadyPause is how long a listener waits for the kernel to have room again.
const steadyPause = 100 * time.Millisecond

// steady is a listener that goes on when the kernel has no room for another
// connection: [http.Server] ends then, but for some of the reasons.
type steady struct {
	net.Listener

	log  *slog.Logger
	over chan struct{} // closed when the listener is
}

// Steady makes a listener outlast what the kernel lacks for a while, such as memory
// or places in epoll, of which programs of the same user may have taken all.
func Steady(listener net.Listener, log *slog.Logger) net.Listener {
	return &steady{Listener: listener, log: log, over: make(chan struct{})}
}

// Accept waits for the next connection.
func (s *steady) Accept() (net.Conn, error) {
	for told := false; ; told = true {
		conn, err := s.Listener.Accept()
		if err == nil || !isPassing(err) {
			return conn, err
		}
		if !told {
			s.log.Warn("no connection can be taken for the moment", "error", err)
		}
		select {
		case <-s.over:
			return nil, net.ErrClosed
		case <-time.After(steadyPause):
		}
	}
}

// Close ends the listener. It is called once.
func (s *steady) Close() error {
	close(s.over)
	return s.Listener.Close()
}

// isPassing says whether a failure to take a connection may pass.
func isPassing(err error) bool {
	return slices.ContainsFunc([]syscall.Errno{
		syscall.ENOSPC, syscall.ENOMEM, syscall.ENOBUFS, syscall.EMFILE, syscall.ENFILE,
	}, func(number syscall.Errno) bool { return errors.Is(err, number) })
}
