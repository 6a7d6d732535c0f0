package link

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"time"
)

const (
	// skew is how far the clocks of two machines may differ: certificates are valid that
	// much before they are made.
	skew = time.Hour

	pinPrefix = "sha256:"
)

// noEnd is the end of a certificate that has none (RFC 5280, section 4.1.2.5).
func noEnd() time.Time { return time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC) }

// WriteIdentity makes a key and a certificate for a pod, writes both to a new file as PEM, the
// key first, and returns the key's pin. It fails if there is a file already: somebody has used
// this pod.
func WriteIdentity(path string) (pin string, err error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return "", err
	}
	// Only the key counts, so the certificate says nothing and is valid for as long as the pod lives.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vivarium sandbox"},
		NotBefore: time.Now().Add(-skew), NotAfter: noEnd(),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", fmt.Errorf("the certificate of the pod: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return "", fmt.Errorf("the certificate of the pod: %w", err)
	}
	if err := writeNew(path, slices.Concat(keyPEM, certificatePEM(der))); err != nil {
		return "", err
	}
	return pinOf(certificate), nil
}

// pinOf returns the pin of a certificate's key: "sha256:" and 64 digits, the hash of its
// SubjectPublicKeyInfo.
func pinOf(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	return pinPrefix + hex.EncodeToString(sum[:])
}

// newKey returns a key on the curve P-256, which OpenSSL in FIPS mode also has, and its PEM.
func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// writeNew writes a new file that only its owner may read. It leaves no part of one.
func writeNew(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
