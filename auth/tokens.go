package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/sync/singleflight"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// fetchTime bounds the way to the issuer and back.
	fetchTime = 10 * time.Second
	// fetchPause is how long the issuer is not asked again, whatever comes: not
	// after a failure, and not for keys that it does not have.
	fetchPause = 10 * time.Second
	// keysAge is how long keys are believed. The issuer may have taken one back.
	keysAge = 10 * time.Minute
	// patience is how long a token of a known key waits for younger keys.
	patience = time.Second
	// maxDocument bounds what the issuer may answer.
	maxDocument = 1 << 20
	// clockSkew is by how much the issuer's clock may differ from ours.
	clockSkew = time.Minute
)

// TokenOptions configure [Tokens].
type TokenOptions struct {
	// Issuer is the issuer's URL, as its tokens have it.
	Issuer string
	// Audiences are those of which a token must have one.
	Audiences []string
	// KeysURL is where the issuer's keys are. Empty asks the issuer (OpenID
	// Connect Discovery).
	KeysURL string
	// Client asks the issuer. Nil means [http.DefaultClient].
	Client *http.Client
}

// Tokens verifies access tokens that are JWTs (RFC 9068). The issuer is asked for
// its keys when the first token comes; while it does not answer, tokens cannot be
// verified. It is safe for concurrent use.
type Tokens struct {
	opts   TokenOptions
	flight singleflight.Group

	mu      sync.Mutex
	keys    []jose.JSONWebKey
	fetched time.Time // when the keys came
	tried   time.Time // when the issuer was last asked
	fault   error     // what came of that
	late    bool      // the issuer did not answer in time or at all, and has not since
}

// NewTokens makes a Tokens.
func NewTokens(opts TokenOptions) *Tokens {
	if opts.Client == nil {
		opts.Client = http.DefaultClient
	}
	return &Tokens{opts: opts}
}

// algorithms are those with which a token may be signed: none for which the
// issuer and we would share a secret.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}

// verify gives the owner of what a token's bearer makes.
func (t *Tokens) verify(ctx context.Context, text string) (execution.Owner, error) {
	token, err := jwt.ParseSigned(text, algorithms())
	if err != nil || len(token.Headers) != 1 {
		return "", invalid("it is neither a key nor a signed token", err)
	}
	if !isAccessToken(token.Headers[0]) {
		return "", invalid("it is no access token", nil)
	}
	claims, err := t.open(ctx, token)
	if err != nil {
		return "", err
	}
	return t.check(claims)
}

// open gives the claims of a token that the issuer has signed.
func (t *Tokens) open(ctx context.Context, token *jwt.JSONWebToken) (jwt.Claims, error) {
	id := token.Headers[0].KeyID
	keys, err := t.find(ctx, id)
	if err != nil {
		return jwt.Claims{}, err
	}
	claims, err := verified(token, keys)
	if err == nil {
		return claims, nil
	}
	if err := t.ask(ctx, nil); err != nil { // a key may have changed and kept its name
		return jwt.Claims{}, err
	}
	if keys, err = t.find(ctx, id); err != nil {
		return jwt.Claims{}, err
	}
	if claims, err = verified(token, keys); err != nil {
		return jwt.Claims{}, invalid("its signature is not the issuer's", err)
	}
	return claims, nil
}

// verified gives the claims of a token that one of the keys has signed.
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

// isAccessToken says whether a token may be one by its type: other JWTs of the
// same issuer, such as those of logouts and proofs, are signed with the same keys
// (RFC 9068, section 4). Issuers that do not follow that say JWT, or nothing.
func isAccessToken(header jose.Header) bool {
	given, ok := header.ExtraHeaders[jose.HeaderType]
	if !ok {
		return true
	}
	kind, _ := given.(string)
	kind = strings.TrimPrefix(strings.ToLower(kind), "application/")
	return kind == "at+jwt" || kind == "jwt"
}

// check checks the claims of a token that the issuer has signed.
func (t *Tokens) check(claims jwt.Claims) (execution.Owner, error) {
	err := claims.ValidateWithLeeway(jwt.Expected{Issuer: t.opts.Issuer, AnyAudience: t.opts.Audiences, Time: time.Now()}, clockSkew)
	switch {
	case errors.Is(err, jwt.ErrExpired):
		return "", invalid("it has expired", err)
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return "", invalid("it is another issuer's", err)
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

// invalid is the error for a token that is refused.
func invalid(why string, cause error) error {
	return &execution.Error{Code: execution.Unauthenticated, Message: "the token is refused: " + why, Err: cause}
}

// find gives the issuer's keys that a token may be signed with.
func (t *Tokens) find(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	if err := t.update(ctx, id); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	keys := t.namedLocked(id)
	switch {
	case len(keys) > 0:
		return keys, nil
	case t.fault != nil:
		return nil, t.fault
	}
	return nil, invalid("the issuer has no such key", nil)
}

// update asks the issuer for its keys where that is called for. Whoever can do
// with what is known waits briefly, and where the issuer is late already, not at all.
func (t *Tokens) update(ctx context.Context, id string) error {
	t.mu.Lock()
	known, stale, late := len(t.namedLocked(id)) > 0, time.Since(t.fetched) >= keysAge, t.late
	t.mu.Unlock()
	switch {
	case !known:
		return t.ask(ctx, nil)
	case stale && late:
		return t.ask(ctx, time.After(0))
	case stale:
		return t.ask(ctx, time.After(patience))
	}
	return nil
}

// namedLocked gives the keys that are known by an id, or all for a token that
// names none.
func (t *Tokens) namedLocked(id string) []jose.JSONWebKey {
	var keys []jose.JSONWebKey
	for _, key := range t.keys {
		if id == "" || key.KeyID == id {
			keys = append(keys, key)
		}
	}
	return keys
}

// ask asks the issuer for its keys, with whoever else needs them, unless that was
// done just now. It waits until the issuer has answered, or enough comes; neither
// that nor a caller who leaves stops the question.
func (t *Tokens) ask(ctx context.Context, enough <-chan time.Time) error {
	if !t.due() {
		return nil
	}
	asked := t.flight.DoChan("", func() (any, error) {
		t.refresh(context.WithoutCancel(ctx))
		return nil, nil //nolint:nilnil // what came of it is kept for others too
	})
	select {
	case <-asked:
	case <-enough:
		t.mu.Lock()
		t.late = true
		t.mu.Unlock()
	case <-ctx.Done():
		return &execution.Error{Code: execution.Cancelled, Message: "the caller left", Err: context.Cause(ctx)}
	}
	return nil
}

func (t *Tokens) due() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.tried) >= fetchPause
}

// refresh gets the issuer's keys. Where that fails, those that are known stay.
func (t *Tokens) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	keys, err := t.fetch(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tried, t.fault, t.late = time.Now(), nil, err != nil
	if err != nil {
		t.fault = &execution.Error{
			Code: execution.Unavailable, Message: "the token cannot be verified: its issuer does not answer as it should; try again", Err: err,
		}
		return
	}
	t.keys, t.fetched = keys, t.tried
}

// fetch gets the issuer's keys.
func (t *Tokens) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	address := t.opts.KeysURL
	if address == "" {
		var err error
		if address, err = t.discover(ctx); err != nil {
			return nil, err
		}
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := t.get(ctx, address, &set); err != nil {
		return nil, err
	}
	return understood(set.Keys), nil
}

// understood gives the keys of a set that can verify something. Others say nothing
// about these (RFC 7517, section 5); go-jose would refuse the set (v4.1.5).
func understood(texts []json.RawMessage) []jose.JSONWebKey {
	var keys []jose.JSONWebKey
	for _, text := range texts {
		var key jose.JSONWebKey
		if err := json.Unmarshal(text, &key); err == nil && key.Use != "enc" && key.Valid() && key.IsPublic() {
			keys = append(keys, key)
		}
	}
	return keys
}

// discover asks the issuer where its keys are
// (https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig).
func (t *Tokens) discover(ctx context.Context) (string, error) {
	address := strings.TrimSuffix(t.opts.Issuer, "/") + "/.well-known/openid-configuration"
	var found struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := t.get(ctx, address, &found); err != nil {
		return "", err
	}
	if found.Issuer != t.opts.Issuer || found.Keys == "" {
		return "", fmt.Errorf("%s is of the issuer %q, not %q, or does not say where its keys are", address, found.Issuer, t.opts.Issuer)
	}
	return found.Keys, nil
}

// get gets a JSON document.
func (t *Tokens) get(ctx context.Context, address string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := t.opts.Client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", address, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxDocument)).Decode(into); err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	return nil
}
