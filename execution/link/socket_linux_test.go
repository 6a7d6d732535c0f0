package link_test

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel notices a lost node by itself.
func TestSocketOptions(t *testing.T) {
	ca := newCA(t)
	conn := dial(t, credentials(t, ca), startPod(t, "tcp", "127.0.0.1", ca.Certificate))
	raw, err := conn.NetConn().(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range []struct{ level, name, want int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 5},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 3},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 10_000},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	} {
		err := raw.Control(func(fd uintptr) {
			if got, err := unix.GetsockoptInt(int(fd), option.level, option.name); err != nil || got != option.want {
				t.Errorf("option %d is %d, not %d (%v)", option.name, got, option.want, err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
