package link_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution/link"
)

const (
	release = "release"
	hour    = time.Hour
)

// newCA returns a new certificate authority.
func newCA(t *testing.T) *link.CA {
	t.Helper()
	ca, err := link.NewCA(release, hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// write writes a file of a folder.
func write(t *testing.T, folder, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue writes credentials that an authority has issued into a folder.
func issue(t *testing.T, folder string, ca *link.CA, authorities []byte) {
	t.Helper()
	certificate, key, err := ca.Issue(release, []string{"vivarium.example"}, hour)
	if err != nil {
		t.Fatal(err)
	}
	write(t, folder, link.CAFile, authorities)
	write(t, folder, link.CertificateFile, certificate)
	write(t, folder, link.KeyFile, key)
}

// credentials returns new credentials that an authority has issued.
func credentials(t *testing.T, ca *link.CA) *link.Credentials {
	t.Helper()
	folder := t.TempDir()
	issue(t, folder, ca, ca.Certificate)
	c, err := link.LoadCredentials(folder)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pod stands in for PID 1 of a pod. It answers what it gets with the same.
type pod struct {
	address, pin string
	config       *tls.Config
	clients      chan *x509.Certificate // those that it accepted
}

// startPod starts a pod that trusts authorities, until the test's end.
func startPod(t *testing.T, network, host string, authorities []byte) *pod {
	t.Helper()
	file := filepath.Join(t.TempDir(), "identity")
	pin, err := link.WriteIdentity(file)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(authorities) {
		t.Fatal("the authorities are not PEM")
	}
	p := &pod{pin: pin, clients: make(chan *x509.Certificate, 100), config: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{identity}, SessionTicketsDisabled: true,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trusted, NextProtos: []string{link.Protocol},
	}}
	p.address = listen(t, network, host, func(conn net.Conn) {
		server := tls.Server(conn, p.config)
		defer func() { _ = server.Close() }()
		if server.Handshake() != nil {
			return
		}
		p.clients <- server.ConnectionState().PeerCertificates[0]
		_, _ = io.Copy(server, server)
		_ = server.CloseWrite()
	})
	return p
}

// listen serves connections until the test's end. It returns the address.
func listen(t *testing.T, network, host string, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen(network, net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			go serve(conn)
		}
	}()
	return listener.Addr().String()
}

// dial connects to a pod, and closes the connection at the test's end.
func dial(t *testing.T, c *link.Credentials, p *pod) *link.Conn {
	t.Helper()
	conn, err := c.Dial(t.Context(), p.address, p.pin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// wantEcho checks that a pod answers.
func wantEcho(t *testing.T, conn *link.Conn) {
	t.Helper()
	const said = "a frame"
	if _, err := io.WriteString(conn, said); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if heard, err := io.ReadAll(conn); err != nil || string(heard) != said {
		t.Fatalf("the pod answers %q (%v)", heard, err)
	}
}

// wantError checks an error and what its text names.
func wantError(t *testing.T, err, want error, names ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("the error is %v; want %v", err, want)
	}
	wantText(t, err, names...)
}
