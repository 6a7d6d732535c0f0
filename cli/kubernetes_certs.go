package cli

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/vivarium-sandbox/vivarium/execution/link"
)

// authorityKeyFile is the key of the CA, which no server needs.
const authorityKeyFile = "ca.key"

// maxDays is how long certificates may be valid: a hundred years.
const maxDays = 36500

type certsOptions struct {
	release, folder   string
	secret, namespace string
	names             []string
	days, caDays      int
}

func certsCommand(system System) *cobra.Command {
	var o certsOptions
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "Make the CA and the certificate by which pods know their servers",
		Long: `Make the CA and the certificate by which the pods of sandboxes know their servers.
Files go to a folder (--folder), to be used again: if it has a CA, only the
server's certificate is made anew. A Secret (--secret) is printed as a manifest,
without the key of the CA. Without a folder, that key is lost, and the next
certificate will have a new CA.`,
		Example: `  vivarium kubernetes certs --folder link/
  vivarium kubernetes certs --folder link/ --secret vivarium-link --namespace vivarium | kubectl apply -f -
  vivarium kubernetes certs --folder link/ --release blue --dns-name blue.vivarium.svc --days 90`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return makeCertificates(system, o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.release, "release", "vivarium", "name of the release that the servers belong to")
	flags.StringSliceVar(&o.names, "dns-name", nil, "DNS names of the servers, for each other")
	flags.StringVar(&o.folder, "folder", "", "folder for ca.crt, ca.key, tls.crt and tls.key")
	flags.StringVar(&o.secret, "secret", "", "print a Kubernetes Secret of this name, with ca.crt, tls.crt and tls.key")
	flags.StringVar(&o.namespace, "namespace", "", "namespace of the Secret")
	flags.IntVar(&o.days, "days", 365, "for how long the server's certificate is valid")
	flags.IntVar(&o.caDays, "ca-days", 3650, "for how long a new CA is valid")
	return cmd
}

func makeCertificates(system System, o certsOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	ca, authorities, err := o.authority()
	if err != nil {
		return err
	}
	certificate, key, err := ca.Issue(o.release, o.names, days(o.days))
	if err != nil {
		return err
	}
	if o.folder != "" {
		for name, content := range map[string][]byte{
			link.CAFile: authorities, authorityKeyFile: ca.Key, link.CertificateFile: certificate, link.KeyFile: key,
		} {
			if err := replaceFile(filepath.Join(o.folder, name), content); err != nil {
				return fmt.Errorf("--folder: %w", err)
			}
		}
		_, _ = fmt.Fprintf(system.Stderr, "Wrote the certificates to %s; the CA is valid until %s.\n", o.folder, ca.End().Format(time.DateOnly))
	}
	if o.secret == "" {
		return nil
	}
	return printSecret(system.Stdout, o, authorities, certificate, key)
}

func days(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

func (o certsOptions) check() error {
	if o.folder == "" && o.secret == "" {
		return errors.New("the certificates have no place to go: pass --folder, --secret or both")
	}
	if o.namespace != "" && o.secret == "" {
		return errors.New("--namespace is of a Secret: pass --secret too")
	}
	named := map[string][]string{"--release": {o.release}, "--dns-name": o.names}
	if o.secret != "" {
		named["--secret"] = []string{o.secret}
	}
	if o.namespace != "" {
		named["--namespace"] = []string{o.namespace}
	}
	for flag, names := range named {
		for _, name := range names {
			if !isName(name) {
				return fmt.Errorf("%s is %q: must be lower-case letters, digits, - and ., with a letter or digit at both ends", flag, name)
			}
		}
	}
	for flag, n := range map[string]int{"--days": o.days, "--ca-days": o.caDays} {
		if n < 1 || n > maxDays {
			return fmt.Errorf("%s is %d: must be from 1 to %d", flag, n, maxDays)
		}
	}
	return nil
}

// isName reports whether a text is a name of Kubernetes and of the DNS (RFC 1123).
func isName(text string) bool {
	const longest = 253
	label := `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
	return len(text) <= longest && regexp.MustCompile(`^`+label+`(\.`+label+`)*$`).MatchString(text)
}

// authority returns the CA of the folder, or a new one if it has none, and what servers and
// pods must know of it: all certificates of ca.crt, of which one may be an earlier CA's.
func (o certsOptions) authority() (*link.CA, []byte, error) {
	if o.folder != "" {
		certificates, err := os.ReadFile(filepath.Join(o.folder, link.CAFile))
		if err == nil {
			ca, err := o.load(certificates)
			return ca, certificates, err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("--folder: %w", err)
		}
	}
	ca, err := link.NewCA(o.release, days(o.caDays))
	if err != nil {
		return nil, nil, err
	}
	return ca, ca.Certificate, nil
}

func (o certsOptions) load(certificates []byte) (*link.CA, error) {
	key, err := os.ReadFile(filepath.Join(o.folder, authorityKeyFile))
	if err != nil {
		return nil, fmt.Errorf("--folder: there is a CA without its key: %w", err)
	}
	ca, err := link.LoadCA(certificates, key)
	if err != nil {
		return nil, fmt.Errorf("--folder is %s: %w", o.folder, err)
	}
	if ca.End().Before(time.Now()) {
		return nil, fmt.Errorf("--folder is %s: its CA ended on %s: use another folder", o.folder, ca.End().Format(time.DateOnly))
	}
	return ca, nil
}

// printSecret prints the manifest of a Secret.
func printSecret(out io.Writer, o certsOptions, authorities, certificate, key []byte) error {
	namespace := ""
	if o.namespace != "" {
		namespace = fmt.Sprintf("  namespace: %q\n", o.namespace) // quoted: a name may be all digits
	}
	encode := base64.StdEncoding.EncodeToString
	_, err := fmt.Fprintf(out, `apiVersion: v1
kind: Secret
metadata:
  name: %q
%stype: kubernetes.io/tls
data:
  %s: %s
  %s: %s
  %s: %s
`, o.secret, namespace, link.CAFile, encode(authorities), link.CertificateFile, encode(certificate), link.KeyFile, encode(key))
	return err
}
