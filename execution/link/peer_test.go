package link_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"net"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution/link"
)

// credentialsOf returns credentials of a release, which a CA has issued.
func credentialsOf(t *testing.T, ca *link.CA, release string) *link.Credentials {
	t.Helper()
	folder := t.TempDir()
	certificate, key, err := ca.Issue(release, nil, hour)
	if err != nil {
		t.Fatal(err)
	}
	write(t, folder, link.CertificateFile, certificate)
	write(t, folder, link.KeyFile, key)
	write(t, folder, link.CAFile, ca.Certificate)
	return load(t, folder)
}

func load(t *testing.T, folder string) *link.Credentials {
	t.Helper()
	c, err := link.LoadCredentials(folder)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// meet has a client and a server exchange a byte, and returns the errors of both.
func meet(t *testing.T, client, server *tls.Config) (ofClient, ofServer error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	ended := make(chan error, 1)
	go func() {
		there, err := listener.Accept()
		if err == nil {
			_, err = tls.Server(there, server).Write([]byte("x"))
			_ = there.Close()
		}
		ended <- err
	}()
	here, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, ofClient = io.ReadFull(tls.Client(here, client), make([]byte, 1))
	_ = here.Close()
	return ofClient, <-ended
}

// Servers of a release accept each other, and nothing else.
func TestPeers(t *testing.T) {
	ca := newCA(t)
	ours := credentialsOf(t, ca, release)
	if err := ours.CheckPeer(); err != nil {
		t.Error(err)
	}
	if client, server := meet(t, credentialsOf(t, ca, release).PeerClient(), ours.PeerServer()); client != nil || server != nil {
		t.Errorf("%v, %v", client, server)
	}
	for name, other := range map[string]*link.Credentials{
		"another release": credentialsOf(t, ca, "other"), "another CA": credentialsOf(t, newCA(t), release),
	} {
		if client, _ := meet(t, ours.PeerClient(), other.PeerServer()); client == nil {
			t.Errorf("a client accepts a server of %s", name)
		}
		if _, server := meet(t, other.PeerClient(), ours.PeerServer()); server == nil {
			t.Errorf("a server accepts a client of %s", name)
		}
	}
	if _, server := meet(t, &tls.Config{InsecureSkipVerify: true}, ours.PeerServer()); server == nil {
		t.Error("a server accepts a client without a certificate")
	}
}

// Helm's certificates have no URI. Their common name then says which release they are for.
func TestPeersOfHelm(t *testing.T) {
	ca := newCA(t)
	ours := helmCredentials(t, ca, "vivarium server of "+release)
	if client, server := meet(t, helmCredentials(t, ca, "vivarium server of "+release).PeerClient(), ours.PeerServer()); client != nil || server != nil {
		t.Errorf("%v, %v", client, server)
	}
	if _, server := meet(t, helmCredentials(t, ca, "other").PeerClient(), ours.PeerServer()); server == nil {
		t.Error("a server accepts a client of another release")
	}
	nameless := helmCredentials(t, ca, "")
	wantText(t, nameless.CheckPeer(), `is for ""`)
	if _, server := meet(t, nameless.PeerClient(), nameless.PeerServer()); server == nil {
		t.Error("a server accepts a client without a name")
	}
}

// helmCredentials returns credentials as Helm's genSignedCert makes them.
func helmCredentials(t *testing.T, ca *link.CA, name string) *link.Credentials {
	t.Helper()
	pair, err := tls.X509KeyPair(ca.Certificate, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-hour), NotAfter: pair.Leaf.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, pair.Leaf, key.Public(), pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	write(t, folder, link.CertificateFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, folder, link.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	write(t, folder, link.CAFile, ca.Certificate)
	return load(t, folder)
}
