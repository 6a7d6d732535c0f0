package link

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// PeerServer returns the terms on which this server answers others of its release.
func (c *Credentials) PeerServer() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.certificate(), nil },
		// VerifyConnection checks the certificate against the CA as it is then.
		ClientAuth:       tls.RequireAnyClientCert,
		VerifyConnection: c.verifyPeer(x509.ExtKeyUsageClientAuth),
	}
}

// PeerClient returns the terms on which this server connects to others of its release.
func (c *Credentials) PeerClient() *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.certificate(), nil },
		// Addresses pass from pod to pod, so that no name of a host identifies a server.
		// VerifyConnection demands the CA and the release.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection:   c.verifyPeer(x509.ExtKeyUsageServerAuth),
	}
}

// CheckPeer returns why other servers would reject the credentials.
func (c *Credentials) CheckPeer() error {
	if err := c.Check(); err != nil {
		return err
	}
	return c.verifyPeer(x509.ExtKeyUsageServerAuth)(tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.certificate().Leaf}})
}

// verifyPeer returns a check that the other end is a server of this one's release: the CA has
// issued its certificate for a use, and both are for the same release.
func (c *Credentials) verifyPeer(use x509.ExtKeyUsage) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("the other server shows no certificate")
		}
		shown, own := state.PeerCertificates[0], c.certificate().Leaf
		roots, err := parseCertificates(c.CA())
		if err == nil {
			err = issued(shown, state.PeerCertificates[1:], roots, use)
		}
		if err != nil {
			return fmt.Errorf("the certificate of a server: %w", err)
		}
		identity := identityOf(own)
		if identity == "" || identityOf(shown) != identity {
			return fmt.Errorf("the certificate of a server is for %q and must be for %q, as this server's own", identityOf(shown), identity)
		}
		return nil
	}
}

// identityOf returns the release that a certificate is for: its URI or, as Helm makes
// certificates without URIs, its common name.
func identityOf(certificate *x509.Certificate) string {
	for _, uri := range certificate.URIs {
		if uri.Scheme == "spiffe" {
			return uri.String()
		}
	}
	return certificate.Subject.CommonName
}

// issued returns why none of the roots has issued a certificate for a use.
func issued(certificate *x509.Certificate, between, roots []*x509.Certificate, use x509.ExtKeyUsage) error {
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{use}}
	for _, root := range roots {
		options.Roots.AddCert(root)
	}
	for _, other := range between {
		options.Intermediates.AddCert(other)
	}
	_, err := certificate.Verify(options)
	return err
}
