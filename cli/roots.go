package cli

import (
	"crypto/x509"
	"fmt"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// trustBundledRoots has this process trust Mozilla's roots where the system
// names none, as in our own image. It may be called once in a process: that is
// why the library's own package, which does it in each, is not used; it would
// cost every command 3 ms.
func trustBundledRoots() error {
	pool := x509.NewCertPool()
	for root := range bundle.Roots() {
		certificate, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			return fmt.Errorf("bundled root certificates: %w", err)
		}
		if root.Constraint == nil {
			pool.AddCert(certificate)
		} else {
			pool.AddCertWithConstraint(certificate, root.Constraint)
		}
	}
	x509.SetFallbackRoots(pool)
	return nil
}
