package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// List is a list separated by commas. The zero value is empty.
type List []string

// EnvDecode implements [envconfig.Decoder].
func (l *List) EnvDecode(value string) error {
	*l = nil
	for part := range strings.SplitSeq(value, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*l = append(*l, part)
		}
	}
	return nil
}

// Names is a list of names, in lower case.
type Names []string

// EnvDecode implements [envconfig.Decoder].
func (n *Names) EnvDecode(value string) error { return (*List)(n).EnvDecode(strings.ToLower(value)) }

// minKeyBytes is how long a key must be. A random key of that length cannot be
// guessed.
const minKeyBytes = 16

// Keys are the hashes of keys. The keys themselves are not kept. The zero value has
// no keys.
type Keys struct {
	// Hashes are SHA-256.
	Hashes [][sha256.Size]byte

	fault string // what is wrong with them; it contains no key
}

// EnvDecode implements [envconfig.Decoder].
func (k *Keys) EnvDecode(value string) error {
	*k = Keys{}
	var keys List
	_ = keys.EnvDecode(value) // it never fails
	if value != "" && len(keys) == 0 {
		k.fault = "it is set, but holds no key" // an empty list would let everyone in
	}
	for i, key := range keys {
		visible := strings.IndexFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
		if len(key) < minKeyBytes || !visible {
			k.fault = fmt.Sprintf("its key %d of %d is too short or has other characters", i+1, len(keys))
		}
		k.Hashes = append(k.Hashes, sha256.Sum256([]byte(key)))
	}
	return nil
}

// accessFaults finds what is wrong with the settings of access.
func (c Config) accessFaults() []error {
	var faults []error
	for _, s := range Settings() {
		switch s.Name {
		case "ALLOWED_HOSTS":
			faults = append(faults, s.faults(c.AllowedHosts, hostName().MatchString)...)
		case "ALLOWED_ORIGINS":
			faults = append(faults, s.faults(c.AllowedOrigins, isOrigin)...)
		case "API_KEYS":
			if c.APIKeys.fault != "" {
				faults = append(faults, fmt.Errorf("API_KEYS is not valid: %s: it must be %s", c.APIKeys.fault, s.Allowed))
			}
		case "OAUTH_ISSUER":
			faults = append(faults, s.urlFaults(c.OAuthIssuer)...)
		case "OAUTH_JWKS_URL":
			faults = append(faults, s.urlFaults(c.OAuthJWKSURL)...)
		case "PUBLIC_URL":
			if c.PublicURL != "" && (!publicURL().MatchString(c.PublicURL) || !isOrigin(c.PublicURL)) {
				faults = append(faults, fmt.Errorf("PUBLIC_URL is %q: must be %s", redact(c.PublicURL), s.Allowed))
			}
		}
	}
	return append(faults, c.issuerFaults()...)
}

// issuerFaults finds settings of OAuth that need each other.
func (c Config) issuerFaults() []error {
	switch {
	case c.OAuthIssuer != "" && len(c.OAuthAudience) == 0:
		return []error{fmt.Errorf("OAUTH_AUDIENCE is empty: must be set where OAUTH_ISSUER is, which is %q", redact(c.OAuthIssuer))}
	case c.OAuthIssuer == "" && (len(c.OAuthAudience) > 0 || c.OAuthJWKSURL != ""):
		return []error{errors.New("OAUTH_ISSUER is empty: must be set where OAUTH_AUDIENCE or OAUTH_JWKS_URL is")}
	}
	return nil
}

func (s Setting) urlFaults(address string) []error {
	parsed, err := url.Parse(address)
	if address == "" || err == nil && (parsed.Scheme == "https" || parsed.Scheme == "http") && parsed.Host != "" && parsed.User == nil && parsed.Fragment == "" {
		return nil
	}
	return []error{fmt.Errorf("%s is %q: must be %s", s.Name, redact(address), s.Allowed)}
}

// faults finds a name that is not accepted.
func (s Setting) faults(names []string, accepts func(string) bool) []error {
	i := slices.IndexFunc(names, func(name string) bool { return !accepts(name) })
	if i < 0 {
		return nil
	}
	return []error{fmt.Errorf("%s has %q: must be %s", s.Name, names[i], s.Allowed)}
}

func publicURL() *regexp.Regexp {
	return regexp.MustCompile(`^https?://(` + hostForm + `|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$`)
}

const hostForm = `[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*`

func hostName() *regexp.Regexp { return regexp.MustCompile(`^` + hostForm + `$`) }

// isOrigin reports whether a browser may send a text as Origin. Browsers omit the
// default port of the scheme.
func isOrigin(text string) bool {
	own := strings.HasPrefix(text, "https://") && strings.HasSuffix(text, ":443") ||
		strings.HasPrefix(text, "http://") && strings.HasSuffix(text, ":80")
	return origin().MatchString(text) && !own
}

// origin matches what a browser sends as Origin, except "null", which any page can
// send.
func origin() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z][a-z0-9+.-]*://(` + hostForm + `|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$`)
}
