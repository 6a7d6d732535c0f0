// Package auth knows who may use the server: holders of keys, and of tokens that
// an OAuth issuer has signed. It says whose requests are whose; how a request
// carries its key or token is the door's business.
package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// KeyHash is the SHA-256 of a key. The key itself is kept nowhere.
type KeyHash [sha256.Size]byte

// Options configure an [Authenticator].
type Options struct {
	// Keys are the keys that are valid.
	Keys []KeyHash
	// Tokens verifies what is no key. Nil means that nothing else is valid.
	Tokens *Tokens
}

// Authenticator says who bears a key or token. It is safe for concurrent use.
type Authenticator struct{ opts Options }

// New makes an Authenticator.
func New(opts Options) *Authenticator { return &Authenticator{opts} }

// Authenticate gives the owner of what a bearer makes. Its error has code
// [execution.Unauthenticated] where the bearer is nobody we know, and
// [execution.Unavailable] where that cannot be found out now.
func (a *Authenticator) Authenticate(ctx context.Context, bearer string) (execution.Owner, error) {
	if owner, ok := a.keyOwner(bearer); ok {
		return owner, nil
	}
	if a.opts.Tokens == nil {
		return "", &execution.Error{Code: execution.Unauthenticated, Message: "the key is not valid"}
	}
	return a.opts.Tokens.verify(ctx, bearer)
}

// keyOwner looks a key up in a time that does not depend on which keys there are.
func (a *Authenticator) keyOwner(key string) (execution.Owner, bool) {
	hash := sha256.Sum256([]byte(key))
	found := 0
	for _, known := range a.opts.Keys {
		found |= subtle.ConstantTimeCompare(hash[:], known[:])
	}
	return owner("key", string(hash[:])), found == 1
}

// owner names who has a key, or is a subject of an issuer.
func owner(kind string, parts ...string) execution.Owner {
	hash := sha256.New()
	for _, part := range append([]string{"vivarium owner", kind}, parts...) {
		sum := sha256.Sum256([]byte(part)) // so that no two lists of parts are alike
		_, _ = hash.Write(sum[:])
	}
	const size = 16 // bytes; nobody finds two keys of the same name
	return execution.Owner(hex.EncodeToString(hash.Sum(nil)[:size]))
}
