package link_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution/link"
)

// One CA replaces another while the server runs: pods trust both, then the server's
// certificate changes, then pods trust only the new one.
func TestRotation(t *testing.T) {
	before, after := newCA(t), newCA(t)
	both := slices.Concat(after.Certificate, before.Certificate)
	old, between, last := startPod(t, "tcp", "127.0.0.1", before.Certificate), startPod(t, "tcp", "127.0.0.1", both), startPod(t, "tcp", "127.0.0.1", after.Certificate)
	folder := t.TempDir()
	issue(t, folder, before, before.Certificate)
	c, err := link.LoadCredentials(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*pod{old, between} {
		wantEcho(t, dial(t, c, p))
	}
	write(t, folder, link.CAFile, both)
	wantEcho(t, dial(t, c, old))
	issue(t, folder, after, both)
	for _, p := range []*pod{between, last} {
		wantEcho(t, dial(t, c, p))
	}
	_, err = dial(t, c, old).Read(make([]byte, 1))
	wantError(t, err, link.ErrRejected)
	if !slices.Equal(c.CA(), both) {
		t.Errorf("the CA is %s", c.CA())
	}
}

// A server knows whether pods will accept it from what they trust.
func TestCheckFor(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	folder := t.TempDir()
	issue(t, folder, ca, ca.Certificate)
	c, err := link.LoadCredentials(folder)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckFor(slices.Concat(other.Certificate, ca.Certificate)); err != nil {
		t.Error(err)
	}
	wantText(t, c.CheckFor(other.Certificate), "unknown authority")
	wantText(t, c.CheckFor([]byte("x")), "must be certificates as PEM")
}

// Files that do not fit together leave the credentials as they were.
func TestFilesBetweenTwoStates(t *testing.T) {
	ca := newCA(t)
	p := startPod(t, "tcp", "127.0.0.1", ca.Certificate)
	folder := t.TempDir()
	issue(t, folder, ca, ca.Certificate)
	c, err := link.LoadCredentials(folder)
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, err := ca.Issue(release, nil, hour)
	if err != nil {
		t.Fatal(err)
	}
	write(t, folder, link.KeyFile, otherKey)
	wantText(t, c.Check(), link.CertificateFile, link.KeyFile, folder, "private key does not match")
	wantEcho(t, dial(t, c, p))
	if err := os.Remove(filepath.Join(folder, link.CAFile)); err != nil {
		t.Fatal(err)
	}
	wantText(t, c.Check(), filepath.Join(folder, link.CAFile))
	wantEcho(t, dial(t, c, p))
	issue(t, folder, ca, ca.Certificate)
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}

// Credentials that pods would reject are reported before there is a pod.
func TestBadCredentials(t *testing.T) {
	ca := newCA(t)
	expired, expiredKey, err := ca.Issue(release, nil, -hour/2)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		file    string
		content []byte
		want    string
	}{
		"another CA":        {link.CAFile, newCA(t).Certificate, "tls.crt in FOLDER: pods that trust ca.crt would reject it: x509: certificate signed by unknown authority"},
		"no CA":             {link.CAFile, nil, "ca.crt in FOLDER: must be certificates as PEM, and is empty"},
		"no PEM":            {link.CAFile, []byte("x"), "ca.crt in FOLDER: must be certificates as PEM, and nothing else"},
		"no certificate":    {link.CertificateFile, []byte("x"), "tls.crt and tls.key in FOLDER: tls: failed to find any PEM data"},
		"an expired one":    {link.CertificateFile, expired, "tls.crt in FOLDER: pods that trust ca.crt would reject it: x509: certificate has expired"},
		"another one's key": {link.KeyFile, expiredKey, "tls.crt and tls.key in FOLDER: tls: private key does not match public key"},
		"one for servers":   {link.CertificateFile, forServers(t, ca), "tls.crt in FOLDER: pods that trust ca.crt would reject it: x509: certificate specifies an incompatible key usage"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			issue(t, folder, ca, ca.Certificate)
			write(t, folder, test.file, test.content)
			switch name {
			case "an expired one":
				write(t, folder, link.KeyFile, expiredKey)
			case "one for servers":
				write(t, folder, link.KeyFile, ca.Key)
			}
			c, err := link.LoadCredentials(folder)
			if c != nil {
				t.Error("there are credentials")
			}
			wantText(t, err, inFolder(test.want, folder))
		})
	}
}

// forServers returns a certificate of the CA's own key that clients cannot use.
func forServers(t *testing.T, ca *link.CA) []byte {
	t.Helper()
	pair, err := tls.X509KeyPair(ca.Certificate, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		NotAfter: pair.Leaf.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, pair.Leaf, pair.Leaf.PublicKey, pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// Many dials at once, while the files change, all use a certificate that fits its key.
func TestDialsWhileFilesChange(t *testing.T) {
	ca := newCA(t)
	p := startPod(t, "tcp", "127.0.0.1", ca.Certificate)
	folder := t.TempDir()
	issue(t, folder, ca, ca.Certificate)
	c, err := link.LoadCredentials(folder)
	if err != nil {
		t.Fatal(err)
	}
	var dials sync.WaitGroup
	for range 8 {
		dials.Go(func() {
			conn, err := c.Dial(t.Context(), p.address, p.pin)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			if _, err := conn.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Error(err)
			}
		})
	}
	for range 8 {
		issue(t, folder, ca, ca.Certificate)
	}
	dials.Wait()
}
