package link_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution/link"
)

func wantText(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in the error: %v", text, err)
		}
	}
}

func TestDial(t *testing.T) {
	for name, at := range map[string][2]string{"IPv4": {"tcp4", "127.0.0.1"}, "IPv6": {"tcp6", "::1"}} {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t)
			p := startPod(t, at[0], at[1], ca.Certificate)
			conn := dial(t, credentials(t, ca), p)
			wantEcho(t, conn)
			state := conn.ConnectionState()
			if state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != link.Protocol || state.CurveID != tls.CurveP256 {
				t.Errorf("version %#x, protocol %q, curve %v", state.Version, state.NegotiatedProtocol, state.CurveID)
			}
			client := <-p.clients
			if len(client.URIs) != 1 || client.URIs[0].String() != "spiffe://vivarium/release/server" || client.VerifyHostname("vivarium.example") != nil {
				t.Errorf("the pod sees %v and %q", client.URIs, client.DNSNames)
			}
		})
	}
}

// A large answer arrives whole, past the small buffer of the connection.
func TestLargeAnswer(t *testing.T) {
	ca := newCA(t)
	conn := dial(t, credentials(t, ca), startPod(t, "tcp", "127.0.0.1", ca.Certificate))
	sent := strings.Repeat("0123456789", 100_000)
	failed := make(chan error, 1)
	go func() {
		_, err := io.WriteString(conn, sent)
		failed <- errors.Join(err, conn.CloseWrite())
	}()
	got, err := io.ReadAll(conn)
	if err = errors.Join(err, <-failed); err != nil || string(got) != sent {
		t.Errorf("%d bytes of %d came back (%v)", len(got), len(sent), err)
	}
}

// An address may belong to another pod by now, which trusts the same CA.
func TestAnotherPodAnswers(t *testing.T) {
	ca := newCA(t)
	p, other := startPod(t, "tcp", "127.0.0.1", ca.Certificate), startPod(t, "tcp", "127.0.0.1", ca.Certificate)
	for _, pin := range []string{p.pin, "", "sha256:"} {
		_, err := credentials(t, ca).Dial(t.Context(), other.address, pin)
		wantError(t, err, link.ErrPin, "another pod answers at "+other.address+": its key is "+other.pin+" and must be "+pin)
	}
}

// A pod whose certificate is copied, but whose key is another one, is not the pod.
func TestCopiedCertificate(t *testing.T) {
	ca := newCA(t)
	p, thief := startPod(t, "tcp", "127.0.0.1", ca.Certificate), startPod(t, "tcp", "127.0.0.1", ca.Certificate)
	thief.config.Certificates = []tls.Certificate{{
		Certificate: p.config.Certificates[0].Certificate, PrivateKey: thief.config.Certificates[0].PrivateKey,
	}}
	if _, err := credentials(t, ca).Dial(t.Context(), thief.address, p.pin); err == nil || errors.Is(err, link.ErrPin) {
		t.Errorf("the error is %v", err)
	}
}

func TestNothingListens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	_, err = credentials(t, newCA(t)).Dial(t.Context(), address, "")
	wantError(t, err, link.ErrRefused, "nothing listens at "+address)
}

// A pod that accepts the connection and then does nothing is given up.
func TestSilentPod(t *testing.T) {
	address := listen(t, "tcp", "127.0.0.1", func(net.Conn) {})
	_, err := link.DialBriefly(t.Context(), credentials(t, newCA(t)), address)
	wantError(t, err, link.ErrSilent, "nothing answers at "+address, "NetworkPolicy")
}

// The caller's own end of a dial is not the pod's fault.
func TestCallerGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the server ends")
	address := listen(t, "tcp", "127.0.0.1", func(net.Conn) { cancel(why) })
	_, err := credentials(t, newCA(t)).Dial(ctx, address, "")
	wantError(t, err, why, address)
	if errors.Is(err, link.ErrSilent) {
		t.Error(err)
	}
}

// A pod of another version says so itself, as Go's TLS does, or agrees on no protocol, as
// Python's does.
func TestAnotherVersion(t *testing.T) {
	for _, protocols := range [][]string{{"vivarium-link/2"}, nil} {
		ca := newCA(t)
		p := startPod(t, "tcp", "127.0.0.1", ca.Certificate)
		p.config.NextProtos = protocols
		_, err := credentials(t, ca).Dial(t.Context(), p.address, p.pin)
		wantError(t, err, link.ErrVersion, p.address, link.Protocol)
	}
}

// A server that ends a sandbox waits for its PID 1 to be gone, but no longer than it may.
func TestEnd(t *testing.T) {
	ca := newCA(t)
	p := startPod(t, "tcp", "127.0.0.1", ca.Certificate)
	wantError(t, credentials(t, ca).End(t.Context(), p.address, p.pin), link.ErrVersion, link.EndProtocol)
	p = startPod(t, "tcp", "127.0.0.1", ca.Certificate)
	p.config.NextProtos = []string{link.EndProtocol}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the server ends")
	go func() {
		<-p.clients
		cancel(why)
	}()
	wantError(t, credentials(t, ca).End(ctx, p.address, p.pin), why)
	address := listen(t, "tcp", "127.0.0.1", func(conn net.Conn) {
		server := tls.Server(conn, p.config)
		_ = server.Handshake()
		_ = conn.Close() // as the kernel does at the end of a process
	})
	if err := credentials(t, ca).End(t.Context(), address, p.pin); err != nil {
		t.Error(err)
	}
}

func TestOldTLS(t *testing.T) {
	ca := newCA(t)
	p := startPod(t, "tcp", "127.0.0.1", ca.Certificate)
	p.config.MinVersion, p.config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	_, err := credentials(t, ca).Dial(t.Context(), p.address, p.pin)
	if wantText(t, err, p.address, "protocol version"); errors.Is(err, link.ErrRejected) {
		t.Error(err)
	}
}

// A pod that trusts another CA rejects the server after the handshake has ended for it: the
// first read returns that, also where a write failed before.
func TestRejected(t *testing.T) {
	p := startPod(t, "tcp", "127.0.0.1", newCA(t).Certificate)
	c := credentials(t, newCA(t))
	_, err := dial(t, c, p).Read(make([]byte, 1))
	wantError(t, err, link.ErrRejected, "the pod rejects this server's certificate at "+p.address, "unknown certificate authority")

	conn := dial(t, c, p)
	for err = nil; err == nil; { // until the pod's end of the connection arrives
		_, err = conn.Write(make([]byte, 1<<10))
	}
	wantError(t, err, link.ErrRejected, p.address)
	_, err = conn.Read(make([]byte, 1))
	wantError(t, err, link.ErrRejected, p.address)
}

// What a pod sent before it ended is read, also where a write failed before.
func TestLastWordsAfterFailedWrite(t *testing.T) {
	ca := newCA(t)
	p := startPod(t, "tcp", "127.0.0.1", ca.Certificate)
	const reason = "!this pod has been used\n"
	ended := make(chan struct{})
	address := listen(t, "tcp", "127.0.0.1", func(conn net.Conn) {
		server := tls.Server(conn, p.config)
		_, _ = io.WriteString(server, reason)
		_ = conn.(*net.TCPConn).SetLinger(0) // the connection ends with a reset, as when data was unread
		<-ended
		_ = server.Close()
	})
	conn, err := credentials(t, ca).Dial(t.Context(), address, p.pin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	close(ended)
	for err = nil; err == nil; {
		_, err = conn.Write(make([]byte, 1<<10))
	}
	if errors.Is(err, link.ErrRejected) || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the write fails with %v", err)
	}
	heard := make([]byte, len(reason))
	if _, err := io.ReadFull(conn, heard); err != nil || string(heard) != reason {
		t.Errorf("the pod's last words are %q (%v)", heard, err)
	}
}
