package auth

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// clockSkew is by how much the issuer's clock may differ from ours.
const clockSkew = time.Minute

// TokenOptions configure [Tokens].
type TokenOptions struct {
	// Issuer is the issuer's URL, as its tokens contain it.
	Issuer string
	// Audiences are those of which a token must have one.
	Audiences []string
	// KeysURL is where the issuer publishes its keys. Empty asks the issuer (OpenID
	// Connect Discovery).
	KeysURL string
	// Client sends the requests to the issuer. Nil means [http.DefaultClient].
	Client *http.Client
}

// Tokens verifies access tokens that are JWTs (RFC 9068). It fetches the issuer's keys
// when the first token arrives; while the issuer does not answer, no token can be
// verified. It is safe for concurrent use.
type Tokens struct {
	opts TokenOptions
	keys issuerKeys
}

// NewTokens returns a Tokens.
func NewTokens(opts TokenOptions) *Tokens {
	if opts.Client == nil {
		opts.Client = http.DefaultClient
	}
	return &Tokens{opts: opts, keys: issuerKeys{opts: opts}}
}

// algorithms returns those with which a token may be signed: none for which the issuer
// and we would share a secret.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}

// verify returns the owner that a token identifies.
func (t *Tokens) verify(ctx context.Context, text string) (execution.Owner, error) {
	token, err := jwt.ParseSigned(text, algorithms())
	if err != nil || len(token.Headers) != 1 {
		return "", invalid("it is neither a key nor a signed token", err)
	}
	if !isAccessToken(token.Headers[0]) {
		return "", invalid("it is not an access token", nil)
	}
	claims, err := t.claims(ctx, token)
	if err != nil {
		return "", err
	}
	return t.check(claims)
}

// claims returns the claims of a token that the issuer has signed.
func (t *Tokens) claims(ctx context.Context, token *jwt.JSONWebToken) (jwt.Claims, error) {
	id := token.Headers[0].KeyID
	keys, err := t.keys.find(ctx, id)
	if err != nil {
		return jwt.Claims{}, err
	}
	claims, err := verified(token, keys)
	if err == nil {
		return claims, nil
	}
	if err := t.keys.fetch(ctx, nil); err != nil { // a key may have changed and kept its id
		return jwt.Claims{}, err
	}
	if keys, err = t.keys.find(ctx, id); err != nil {
		return jwt.Claims{}, err
	}
	if claims, err = verified(token, keys); err != nil {
		return jwt.Claims{}, invalid("its signature is not the issuer's", err)
	}
	return claims, nil
}

// verified returns the claims of a token that one of the keys has signed.
func verified(token *jwt.JSONWebToken, keys []jose.JSONWebKey) (jwt.Claims, error) {
	err := jose.ErrCryptoFailure // where there is no key
	for _, key := range keys {
		var claims jwt.Claims
		if err = token.Claims(key, &claims); err == nil {
			return claims, nil
		}
	}
	return jwt.Claims{}, err
}

// isAccessToken reports whether a token may be an access token by its type. The issuer
// signs other JWTs with the same keys, such as those of logouts and proofs (RFC 9068,
// section 4). Issuers that do not follow that RFC send JWT, or no type.
func isAccessToken(header jose.Header) bool {
	given, ok := header.ExtraHeaders[jose.HeaderType]
	if !ok {
		return true
	}
	kind, _ := given.(string)
	kind = strings.TrimPrefix(strings.ToLower(kind), "application/")
	return kind == "at+jwt" || kind == "jwt"
}

// check checks the claims of a token that the issuer has signed, and returns the owner
// that they identify.
func (t *Tokens) check(claims jwt.Claims) (execution.Owner, error) {
	err := claims.ValidateWithLeeway(jwt.Expected{Issuer: t.opts.Issuer, AnyAudience: t.opts.Audiences, Time: time.Now()}, clockSkew)
	switch {
	case errors.Is(err, jwt.ErrExpired):
		return "", invalid("it has expired", err)
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return "", invalid("it is not from the configured issuer", err)
	case errors.Is(err, jwt.ErrInvalidAudience):
		return "", invalid("it is for another audience", err)
	case err != nil:
		return "", invalid("it is not valid yet", err)
	case claims.Expiry == nil:
		return "", invalid("it does not expire", nil)
	case claims.Subject == "":
		return "", invalid("it has no subject", nil)
	}
	return owner("oauth", claims.Issuer, claims.Subject), nil
}

// invalid returns the error for a token that is refused.
func invalid(why string, cause error) error {
	return &execution.Error{Code: execution.Unauthenticated, Message: "the token is refused: " + why, Err: cause}
}
