// Package auth authenticates the bearers of keys, and of tokens that an OAuth issuer
// has signed. It identifies the owner of a request; how a request carries its key or
// token is left to the caller.
package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// KeyHash is the SHA-256 of a key. The key itself is not stored.
type KeyHash [sha256.Size]byte

// Options configure an [Authenticator].
type Options struct {
	// Keys are the keys that are valid.
	Keys []KeyHash
	// Tokens verifies bearers that are not keys. Nil means that only keys are valid.
	Tokens *Tokens
}

// Authenticator authenticates bearers. It is safe for concurrent use.
type Authenticator struct{ opts Options }

// New returns an Authenticator.
func New(opts Options) *Authenticator { return &Authenticator{opts} }

// Authenticate returns the owner that a bearer identifies. Its error has code
// [execution.Unauthenticated] if the bearer is not valid, and [execution.Unavailable]
// if that cannot be checked now.
func (a *Authenticator) Authenticate(ctx context.Context, bearer string) (execution.Owner, error) {
	if owner, ok := a.keyOwner(bearer); ok {
		return owner, nil
	}
	if a.opts.Tokens == nil {
		return "", &execution.Error{Code: execution.Unauthenticated, Message: "the key is not valid"}
	}
	return a.opts.Tokens.verify(ctx, bearer)
}

// keyOwner returns the owner of a key and whether the key is valid. It takes the same
// time for any key.
func (a *Authenticator) keyOwner(key string) (execution.Owner, bool) {
	hash := sha256.Sum256([]byte(key))
	found := 0
	for _, known := range a.opts.Keys {
		found |= subtle.ConstantTimeCompare(hash[:], known[:])
	}
	return owner("key", string(hash[:])), found == 1
}

// owner returns the name of the owner of a key, or of a subject of an issuer.
func owner(kind string, parts ...string) execution.Owner {
	hash := sha256.New()
	for _, part := range append([]string{"vivarium owner", kind}, parts...) {
		sum := sha256.Sum256([]byte(part)) // so that no two lists of parts have the same bytes
		_, _ = hash.Write(sum[:])
	}
	const size = 16 // bytes, so that no two keys can be found that have the same name
	return execution.Owner(hex.EncodeToString(hash.Sum(nil)[:size]))
}
