package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"go.uber.org/goleak"

	"github.com/vivarium-sandbox/vivarium/auth"
	"github.com/vivarium-sandbox/vivarium/execution"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	annasKey = "anna's key, which is long"
	bensKey  = "ben's key, which is long"
	issuer   = "https://issuer.example.com"
	audience = "https://sandbox.example.com"
)

func keys() []auth.KeyHash {
	return []auth.KeyHash{sha256.Sum256([]byte(annasKey)), sha256.Sum256([]byte(bensKey))}
}

func TestKeys(t *testing.T) {
	a := auth.New(auth.Options{Keys: keys()})
	anna, annaErr := a.Authenticate(t.Context(), annasKey)
	ben, benErr := a.Authenticate(t.Context(), bensKey)
	if annaErr != nil || benErr != nil || anna == ben || len(anna) != 32 || len(ben) != 32 {
		t.Errorf("%q %v, %q %v", anna, annaErr, ben, benErr)
	}
	if again, _ := auth.New(auth.Options{Keys: keys()[:1]}).Authenticate(t.Context(), annasKey); again != anna {
		t.Errorf("the next server names the owner %q, not %q", again, anna)
	}
	for _, key := range []string{"", "x", annasKey + " ", annasKey[1:], string(anna), strings.ToUpper(annasKey)} {
		if owner, err := a.Authenticate(t.Context(), key); owner != "" || codeOf(err) != execution.Unauthenticated {
			t.Errorf("%q: %q, %v", key, owner, err)
		}
	}
}

func codeOf(err error) execution.Code {
	if err == nil {
		return ""
	}
	return execution.AsError(err).Code
}

// fakeIssuer signs tokens and publishes its keys. It is not a server, so that time can
// be virtual.
type fakeIssuer struct {
	mu    sync.Mutex
	keys  map[string]*ecdsa.PrivateKey // by id
	asked []string                     // the paths, in order
	down  bool
	hangs bool
	says  string // the issuer in its own description
	also  []any  // other keys in its set
}

func newIssuer(t *testing.T) *fakeIssuer {
	t.Helper()
	i := &fakeIssuer{keys: make(map[string]*ecdsa.PrivateKey), says: issuer}
	i.addKey(t, "1")
	return i
}

func (i *fakeIssuer) addKey(t *testing.T, id string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys[id] = key
}

// RoundTrip answers for the issuer.
func (i *fakeIssuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	i.asked = append(i.asked, r.URL.Path)
	down, hangs := i.down, i.hangs
	i.mu.Unlock()
	if hangs {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if down {
		return nil, errors.New("connection refused")
	}
	w := httptest.NewRecorder()
	i.ServeHTTP(w, r)
	return w.Result(), nil
}

func (i *fakeIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.says, "jwks_uri": issuer + "/keys"})
	case "/keys":
		set := i.also
		for id, key := range i.keys {
			set = append(set, jose.JSONWebKey{Key: key.Public(), KeyID: id, Algorithm: "ES256", Use: "sig"})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": set})
	default:
		http.NotFound(w, r)
	}
}

func (i *fakeIssuer) requests() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.asked)
}

func (i *fakeIssuer) set(change func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change()
}

// sign returns a signed token.
func (i *fakeIssuer) sign(t *testing.T, id string, claims jwt.Claims) string {
	t.Helper()
	return signWith(t, jose.ES256, i.keys[id], id, claims)
}

func signWith(t *testing.T, algorithm jose.SignatureAlgorithm, key any, id string, claims jwt.Claims) string {
	t.Helper()
	options := new(jose.SignerOptions)
	if id != "" {
		options = options.WithHeader("kid", id)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// claims returns those of a valid token after a change.
func claims(change func(*jwt.Claims)) jwt.Claims {
	c := jwt.Claims{
		Issuer: issuer, Subject: "anna", Audience: jwt.Audience{"another", audience},
		Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)), IssuedAt: jwt.NewNumericDate(time.Now()),
	}
	if change != nil {
		change(&c)
	}
	return c
}

func (i *fakeIssuer) authenticator() *auth.Authenticator {
	return auth.New(auth.Options{Keys: keys(), Tokens: auth.NewTokens(auth.TokenOptions{
		Issuer: issuer, Audiences: []string{"https://other.example.com", audience}, Client: &http.Client{Transport: i},
	})})
}

func TestTokens(t *testing.T) {
	i := newIssuer(t)
	a := i.authenticator()
	anna, err := a.Authenticate(t.Context(), i.sign(t, "1", claims(nil)))
	if err != nil || len(anna) != 32 {
		t.Fatalf("%q, %v", anna, err)
	}
	again, err := a.Authenticate(t.Context(), i.sign(t, "1", claims(func(c *jwt.Claims) { c.ID = "x"; c.Audience = jwt.Audience{audience} })))
	if err != nil || again != anna {
		t.Errorf("another token of hers: %q, %v", again, err)
	}
	ben, err := a.Authenticate(t.Context(), i.sign(t, "1", claims(func(c *jwt.Claims) { c.Subject = "ben" })))
	if err != nil || ben == anna {
		t.Errorf("somebody else's: %q, %v", ben, err)
	}
	if withoutID, err := a.Authenticate(t.Context(), signWith(t, jose.ES256, i.keys["1"], "", claims(nil))); err != nil || withoutID != anna {
		t.Errorf("one that names no key: %q, %v", withoutID, err)
	}
	if _, err := a.Authenticate(t.Context(), annasKey); err != nil {
		t.Errorf("a key beside tokens: %v", err)
	}
	if i.requests() != 2 {
		t.Errorf("the issuer was asked for %q", i.asked)
	}
}

// forged returns a token that is put together by hand.
func forged(header, payload string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(header)) + "." + encode([]byte(payload)) + "."
}

func TestBadTokens(t *testing.T) {
	i := newIssuer(t)
	i.addKey(t, "2")
	thief, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := i.keys["1"].PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	good := i.sign(t, "1", claims(nil))
	head, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	text, _ := json.Marshal(claims(nil))
	at := func(d time.Duration) *jwt.NumericDate { return jwt.NewNumericDate(time.Now().Add(d)) }
	a := i.authenticator()
	for name, test := range map[string]struct{ token, why string }{
		"expired":             {i.sign(t, "1", claims(func(c *jwt.Claims) { c.Expiry = at(-2 * time.Minute) })), "it has expired"},
		"never expires":       {i.sign(t, "1", claims(func(c *jwt.Claims) { c.Expiry = nil })), "it does not expire"},
		"not yet":             {i.sign(t, "1", claims(func(c *jwt.Claims) { c.NotBefore = at(time.Hour) })), "it is not valid yet"},
		"another issuer":      {i.sign(t, "1", claims(func(c *jwt.Claims) { c.Issuer = issuer + "/" })), "it is not from the configured issuer"},
		"no issuer":           {i.sign(t, "1", claims(func(c *jwt.Claims) { c.Issuer = "" })), "it is not from the configured issuer"},
		"another audience":    {i.sign(t, "1", claims(func(c *jwt.Claims) { c.Audience = jwt.Audience{"x"} })), "it is for another audience"},
		"no audience":         {i.sign(t, "1", claims(func(c *jwt.Claims) { c.Audience = nil })), "it is for another audience"},
		"no subject":          {i.sign(t, "1", claims(func(c *jwt.Claims) { c.Subject = "" })), "it has no subject"},
		"another's key":       {signWith(t, jose.ES256, thief, "1", claims(nil)), "its signature is not the issuer's"},
		"another's, no id":    {signWith(t, jose.ES256, thief, "", claims(nil)), "its signature is not the issuer's"},
		"the wrong key's id":  {signWith(t, jose.ES256, i.keys["1"], "2", claims(nil)), "its signature is not the issuer's"},
		"an unknown key":      {signWith(t, jose.ES256, thief, "3", claims(nil)), "the issuer has no such key"},
		"a changed payload":   {head + "." + payload[:len(payload)-4] + "AAAA." + signature, "its signature is not the issuer's"},
		"no algorithm":        {forged(`{"alg":"none"}`, string(text)), "it is neither a key nor a signed token"},
		"a public key's HMAC": {signWith(t, jose.HS256, public, "1", claims(nil)), "it is neither a key nor a signed token"},
		"no token":            {"x.y.z", "it is neither a key nor a signed token"},
		"a token and no more": {good + ".", "it is neither a key nor a signed token"},
		"nothing":             {"", "it is neither a key nor a signed token"},
	} {
		_, err := a.Authenticate(t.Context(), test.token)
		if codeOf(err) != execution.Unauthenticated || !strings.HasPrefix(err.Error(), "the token is refused: "+test.why) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// While the issuer is down, keys are valid and its tokens are not. It is asked again
// after a pause.
func TestIssuerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		i.down = true
		a := i.authenticator()
		token := i.sign(t, "1", claims(nil))
		for range 3 {
			if _, err := a.Authenticate(t.Context(), token); codeOf(err) != execution.Unavailable || strings.Contains(execution.AsError(err).Message, "refused") {
				t.Errorf("%v", err)
			}
		}
		if _, err := a.Authenticate(t.Context(), annasKey); err != nil {
			t.Errorf("a key: %v", err)
		}
		if i.requests() != 1 {
			t.Errorf("it was asked for %q at once", i.asked)
		}
		i.set(func() { i.down = false })
		time.Sleep(10 * time.Second)
		if _, err := a.Authenticate(t.Context(), token); err != nil {
			t.Errorf("when it is up: %v", err)
		}
		i.set(func() { i.down = true })
		time.Sleep(30 * time.Minute)
		if _, err := a.Authenticate(t.Context(), token); err != nil {
			t.Errorf("known keys, when it is down again: %v", err)
		}
	})
}

// A request waits for an issuer that does not answer for a bounded time. A caller that
// leaves stops waiting, and others still get the answer.
func TestIssuerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		i.hangs = true
		a := i.authenticator()
		began := time.Now()
		if _, err := a.Authenticate(t.Context(), i.sign(t, "1", claims(nil))); codeOf(err) != execution.Unavailable || time.Since(began) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// New keys are found and old ones are forgotten. Tokens of unknown keys do not make the
// requests to the issuer more frequent.
func TestKeysChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		a := i.authenticator()
		try := func(id string) execution.Code {
			_, err := a.Authenticate(t.Context(), i.sign(t, id, claims(nil)))
			return codeOf(err)
		}
		old := i.keys["1"]
		if code := try("1"); code != "" {
			t.Fatal(code)
		}
		i.addKey(t, "2")
		for range 100 {
			if code := try("2"); code != execution.Unauthenticated {
				t.Errorf("a key that came just now: %q", code)
			}
		}
		if i.requests() != 2 {
			t.Errorf("the issuer was asked %d times", i.requests())
		}
		time.Sleep(10 * time.Second)
		if code := try("2"); code != "" {
			t.Errorf("a new key: %q", code)
		}
		i.set(func() { delete(i.keys, "1") })
		time.Sleep(10 * time.Minute)
		if _, err := a.Authenticate(t.Context(), signWith(t, jose.ES256, old, "1", claims(nil))); codeOf(err) != execution.Unauthenticated {
			t.Errorf("a key that was taken back: %v", err)
		}
	})
}

// Keys of unknown kinds and broken keys are ignored; the others of the set are used
// (RFC 7517, section 5).
func TestUnusableKeysAreIgnored(t *testing.T) {
	i := newIssuer(t)
	for _, text := range []string{
		`{"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "kid": "a"}`,
		`{"kty": "EC", "crv": "secp256k1", "x": "AAAA", "y": "AAAA", "kid": "b"}`,
		`{"kty": "OKP", "crv": "X25519", "x": "AAAA", "kid": "c"}`,
		`{"kty": "RSA", "kid": "d"}`, `{}`, `"x"`, `null`,
	} {
		i.also = append(i.also, json.RawMessage(text))
	}
	if _, err := i.authenticator().Authenticate(t.Context(), i.sign(t, "1", claims(nil))); err != nil {
		t.Errorf("%v: %v", err, errors.Unwrap(err))
	}
}

// A key that changed and kept its id, or has none, is found as a key with a new id is.
func TestKeysKeepTheirIDs(t *testing.T) {
	for _, name := range []string{"1", ""} {
		synctest.Test(t, func(t *testing.T) {
			i := newIssuer(t)
			i.keys = make(map[string]*ecdsa.PrivateKey)
			i.addKey(t, name)
			a := i.authenticator()
			try := func() execution.Code {
				_, err := a.Authenticate(t.Context(), i.sign(t, name, claims(nil)))
				return codeOf(err)
			}
			if code := try(); code != "" {
				t.Fatal(code)
			}
			i.addKey(t, name)
			for range 100 {
				if code := try(); code != execution.Unauthenticated {
					t.Errorf("%q, just now: %q", name, code)
				}
			}
			time.Sleep(10 * time.Second)
			if code := try(); code != "" {
				t.Errorf("%q, later: %q", name, code)
			}
			if i.requests() != 4 {
				t.Errorf("%q: the issuer was asked for %q", name, i.asked)
			}
			i.set(func() { i.down = true })
			time.Sleep(10 * time.Second)
			i.addKey(t, name)
			if code := try(); code != execution.Unauthenticated {
				t.Errorf("%q, while it is down: %q", name, code)
			}
		})
	}
}

// The first token of a known key waits briefly for an issuer that hangs, and the next
// ones do not. When the issuer answers again, a key that it revoked is refused.
func TestIssuerHangsAfterKeysAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		a := i.authenticator()
		token := i.sign(t, "1", claims(nil))
		waited := func() time.Duration {
			began := time.Now()
			if _, err := a.Authenticate(t.Context(), token); err != nil {
				t.Error(err)
			}
			return time.Since(began)
		}
		waited()
		i.set(func() { i.hangs = true })
		time.Sleep(10 * time.Minute)
		if first := waited(); first != time.Second {
			t.Errorf("the first waits %v", first)
		}
		for range 60 {
			if later := waited(); later != 0 {
				t.Errorf("a later one waits %v", later)
			}
			time.Sleep(time.Second)
		}
		i.set(func() { i.hangs, i.keys["2"] = false, i.keys["1"]; delete(i.keys, "1") })
		time.Sleep(20 * time.Second)
		_, _ = a.Authenticate(t.Context(), token) // it has the issuer asked, whose answer may come in time
		synctest.Wait()
		if _, err := a.Authenticate(t.Context(), token); codeOf(err) != execution.Unauthenticated {
			t.Errorf("a key that was taken back: %v", err)
		}
	})
}

// Other JWTs of the same issuer are not access tokens (RFC 9068, section 4). Issuers that
// do not follow that RFC send JWT, or no type.
func TestOnlyAccessTokensAreAccepted(t *testing.T) {
	i := newIssuer(t)
	a := i.authenticator()
	for kind, accepted := range map[any]bool{
		nil: true, "at+jwt": true, "application/at+jwt": true, "AT+JWT": true, "JWT": true, "jwt": true,
		"logout+jwt": false, "dpop+jwt": false, "application/logout+jwt": false, "secevent+jwt": false, "": false, "at": false, 1: false,
	} {
		options := new(jose.SignerOptions).WithHeader("kid", "1")
		if kind != nil {
			options = options.WithHeader(jose.HeaderType, kind)
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: i.keys["1"]}, options)
		if err != nil {
			t.Fatal(err)
		}
		token, err := jwt.Signed(signer).Claims(claims(nil)).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Authenticate(t.Context(), token)
		refused := codeOf(err) == execution.Unauthenticated && err.Error() == "the token is refused: it is not an access token"
		if accepted && err != nil || !accepted && !refused {
			t.Errorf("%v: %v", kind, err)
		}
	}
}

// A discovery document that describes another issuer is refused.
func TestDiscoveryOfAnotherIssuer(t *testing.T) {
	i := newIssuer(t)
	i.says = "https://evil.example.com"
	if _, err := i.authenticator().Authenticate(t.Context(), i.sign(t, "1", claims(nil))); codeOf(err) != execution.Unavailable {
		t.Errorf("%v", err)
	}
}

// With the URL of the keys, the discovery document is not requested. The issuer is a
// server here.
func TestKeysURL(t *testing.T) {
	i := newIssuer(t)
	server := httptest.NewServer(i)
	defer server.Close()
	tokens := auth.NewTokens(auth.TokenOptions{Issuer: issuer, Audiences: []string{audience}, KeysURL: server.URL + "/keys", Client: server.Client()})
	if _, err := auth.New(auth.Options{Tokens: tokens}).Authenticate(t.Context(), i.sign(t, "1", claims(nil))); err != nil {
		t.Error(err)
	}
}
