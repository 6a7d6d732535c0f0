package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"

	"github.com/vivarium-sandbox/vivarium/auth"
	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

// access decides who may use the server over HTTP.
type access struct {
	hosts, origins []string
	authenticator  httpapi.Authenticator // nil: everyone may use it
}

func newAccess(c config.Config) (access, error) {
	a := access{hosts: c.AllowedHosts, origins: c.AllowedOrigins}
	if c.PublicURL != "" {
		public, err := url.Parse(c.PublicURL)
		if err != nil {
			return a, fmt.Errorf("PUBLIC_URL: %w", err)
		}
		a.hosts = append(slices.Clone(a.hosts), public.Hostname())
		a.origins = append(slices.Clone(a.origins), c.PublicURL)
	}
	options := auth.Options{}
	for _, hash := range c.APIKeys.Hashes {
		options.Keys = append(options.Keys, auth.KeyHash(hash))
	}
	if c.OAuthIssuer != "" {
		options.Tokens = auth.NewTokens(auth.TokenOptions{
			Issuer: c.OAuthIssuer, Audiences: c.OAuthAudience, KeysURL: c.OAuthJWKSURL,
		})
	}
	if len(options.Keys) > 0 || options.Tokens != nil {
		a.authenticator = auth.New(options)
	}
	return a, nil
}

// warn logs that users of other machines may run programs. It logs an error, since
// every LOG_LEVEL shows those.
func (a access) warn(ctx context.Context, log *slog.Logger, address net.Addr) {
	tcp, ok := address.(*net.TCPAddr)
	if a.authenticator != nil || ok && tcp.IP.IsLoopback() {
		return
	}
	log.ErrorContext(ctx, "NO AUTHENTICATION, AND NOT ONLY ON THE LOOPBACK: everyone who can reach this port may run programs and read all files; "+
		"set API_KEYS or OAUTH_ISSUER, or restrict access to the port", "address", address.String())
}
