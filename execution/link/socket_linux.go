package link

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// silence is how long what was sent may stay unacknowledged. Without this bound the kernel
// sends it again for 15 minutes, and keepalive does not apply meanwhile: tcp(7).
const silence = 10 * time.Second

// boundSilence ends a connection to a node that acknowledges nothing.
func boundSilence(_, _ string, conn syscall.RawConn) error {
	var set error
	err := conn.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
	})
	return errors.Join(err, set)
}
