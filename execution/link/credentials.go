package link

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// The files of a folder of credentials, named as in a Kubernetes Secret of type
// kubernetes.io/tls.
const (
	// CertificateFile has the server's certificate, and those of authorities between it and
	// the CA.
	CertificateFile = "tls.crt"
	// KeyFile has the server's key.
	KeyFile = "tls.key"
	// CAFile has the certificate of the CA, or several while one CA replaces another.
	CAFile = "ca.crt"
)

// Credentials are what a server shows to pods: a certificate and its key, from a folder whose
// files may change while the server runs. They may be used concurrently.
type Credentials struct {
	folder string

	mu      sync.Mutex
	texts   texts // that the rest is parsed from
	current *tls.Certificate
}

// texts are the contents of a folder's files.
type texts struct{ certificate, key, ca []byte }

// LoadCredentials reads the credentials in a folder. It fails if the key is not the
// certificate's, or if no certificate in ca.crt has issued it for a client.
func LoadCredentials(folder string) (*Credentials, error) {
	c := &Credentials{folder: folder}
	if err := c.Check(); err != nil {
		return nil, err
	}
	return c, nil
}

// Check returns why pods would reject the credentials, or why the files cannot be used. If the
// files have changed, it reads them again; what cannot be used leaves the credentials as they
// were.
func (c *Credentials) Check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refreshLocked(); err != nil {
		return err
	}
	return checkFiles(c.folder, c.current, c.texts.ca) // it may have expired
}

// CheckFor returns why pods that trust only these certificates, as PEM, would reject the
// credentials.
func (c *Credentials) CheckFor(authorities []byte) error {
	roots, err := parseCertificates(authorities)
	if err != nil {
		return err
	}
	return verify(c.certificate(), roots)
}

// CA returns the certificates of ca.crt, as PEM.
func (c *Credentials) CA() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.texts.ca)
}

// certificate returns the certificate to show. It reads the files each time, so that nothing
// has to watch them: a dial takes much longer.
func (c *Credentials) certificate() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Files that are being replaced may not fit together yet. Check reports those that stay so.
	_ = c.refreshLocked()
	return c.current
}

func (c *Credentials) refreshLocked() error {
	read, err := readTexts(c.folder)
	if err != nil {
		return fmt.Errorf("the credentials of the link: %w", err)
	}
	if c.current != nil && read.equal(c.texts) {
		return nil
	}
	certificate, err := tls.X509KeyPair(read.certificate, read.key)
	if err != nil {
		return fmt.Errorf("the credentials of the link, %s and %s in %s: %w", CertificateFile, KeyFile, c.folder, err)
	}
	if err := checkFiles(c.folder, &certificate, read.ca); err != nil {
		return err
	}
	c.texts, c.current = read, &certificate
	return nil
}

func readTexts(folder string) (t texts, err error) {
	for name, text := range map[string]*[]byte{CertificateFile: &t.certificate, KeyFile: &t.key, CAFile: &t.ca} {
		if *text, err = os.ReadFile(filepath.Join(folder, name)); err != nil {
			return texts{}, err
		}
	}
	return t, nil
}

func (t texts) equal(other texts) bool {
	return bytes.Equal(t.certificate, other.certificate) && bytes.Equal(t.key, other.key) && bytes.Equal(t.ca, other.ca)
}

// checkFiles checks a certificate and the authorities that are in the same folder.
func checkFiles(folder string, certificate *tls.Certificate, authorities []byte) error {
	roots, err := parseCertificates(authorities)
	if err != nil {
		return fmt.Errorf("the credentials of the link, %s in %s: %w", CAFile, folder, err)
	}
	if err := verify(certificate, roots); err != nil {
		return fmt.Errorf("the credentials of the link, %s in %s: pods that trust %s would reject it: %w", CertificateFile, folder, CAFile, err)
	}
	return nil
}

// verify checks a certificate as pods do.
func verify(certificate *tls.Certificate, roots []*x509.Certificate) error {
	var between []*x509.Certificate
	for _, der := range certificate.Certificate[1:] {
		if other, err := x509.ParseCertificate(der); err == nil {
			between = append(between, other)
		}
	}
	return issued(certificate.Leaf, between, roots, x509.ExtKeyUsageClientAuth)
}
