package httpapi_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/vivarium-sandbox/vivarium/httpapi"
)

// scarce is a listener whose first connections fail.
type scarce struct {
	net.Listener
	failures int
	err      error
}

func (s *scarce) Accept() (net.Conn, error) {
	if s.failures == 0 {
		conn, _ := net.Pipe()
		return conn, nil
	}
	s.failures--
	return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", s.err)}
}

func (s *scarce) Close() error { return nil }

// A listener accepts again after temporary errors, and logs the first one.
func TestRetryingListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, number := range []syscall.Errno{syscall.ENOSPC, syscall.ENOMEM, syscall.EMFILE} {
			var log bytes.Buffer
			l := httpapi.NewRetryingListener(&scarce{failures: 3, err: number}, slog.New(slog.NewTextHandler(&log, nil)))
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(number, err)
			}
			_ = conn.Close()
			if strings.Count(log.String(), "cannot accept connections") != 1 {
				t.Errorf("%v: the log is %s", number, &log)
			}
		}
	})
}

// A permanent error is returned, and Close ends the wait for the next attempt.
func TestRetryingListenerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		discard := slog.New(slog.DiscardHandler)
		if _, err := httpapi.NewRetryingListener(&scarce{failures: 1, err: syscall.EINVAL}, discard).Accept(); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("the error is %v", err)
		}
		l := httpapi.NewRetryingListener(&scarce{failures: 1 << 30, err: syscall.ENOSPC}, discard)
		ended := make(chan error, 1)
		go func() {
			_, err := l.Accept()
			ended <- err
		}()
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the error is %v", err)
		}
	})
}
