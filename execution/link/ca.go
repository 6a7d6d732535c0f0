package link

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// CA is the certificate authority of the servers of one release.
type CA struct {
	certificate *x509.Certificate
	key         crypto.Signer
	// Certificate and Key are PEM.
	Certificate, Key []byte
}

// NewCA makes a certificate authority for the servers of a release.
func NewCA(release string, validity time.Duration) (*CA, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "vivarium link CA of " + release},
		NotBefore: now.Add(-skew), NotAfter: now.Add(validity),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("the certificate of the CA: %w", err)
	}
	return LoadCA(certificatePEM(der), keyPEM)
}

// LoadCA reads a certificate authority from PEM. Of several certificates, as there are while
// one authority replaces another, it takes the one that the key belongs to.
func LoadCA(certificates, key []byte) (*CA, error) {
	block, _ := pem.Decode(key)
	if block == nil {
		return nil, errors.New("the key of the CA must be PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the key of the CA: %w", err)
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key of the CA is a %T: must be ECDSA", parsed)
	}
	all, err := parseCertificates(certificates)
	if err != nil {
		return nil, fmt.Errorf("the certificate of the CA: %w", err)
	}
	for _, certificate := range all {
		if private.PublicKey.Equal(certificate.PublicKey) {
			return &CA{certificate, private, certificatePEM(certificate.Raw), key}, nil
		}
	}
	return nil, errors.New("the key of the CA belongs to none of its certificates")
}

// End returns until when the authority's certificate is valid.
func (c *CA) End() time.Time { return c.certificate.NotAfter }

// Issue makes a key and a certificate for the servers of a release, and returns both as PEM.
// Servers show the certificate to pods and to each other; names are the DNS names by which
// others reach them. It is valid for the given time, or until the authority ends.
func (c *CA) Issue(release string, names []string, validity time.Duration) (certificate, key []byte, err error) {
	private, key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	end := now.Add(validity)
	if end.After(c.End()) { // no pod would accept it longer
		end = c.End()
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		Subject:   pkix.Name{CommonName: "vivarium server of " + release},
		NotBefore: now.Add(-skew), NotAfter: end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: "vivarium", Path: "/" + release + "/server"}},
		DNSNames:              names,
	}, c.certificate, private.Public(), c.key)
	if err != nil {
		return nil, nil, fmt.Errorf("the certificate of the server: %w", err)
	}
	return certificatePEM(der), key, nil
}

// parseCertificates returns the certificates in PEM, one at least.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for len(bytes.TrimSpace(text)) > 0 {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("must be certificates as PEM, and nothing else")
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, certificate)
	}
	if len(all) == 0 {
		return nil, errors.New("must be certificates as PEM, and is empty")
	}
	return all, nil
}
