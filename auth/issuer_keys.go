package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// fetchTime bounds the requests of one fetch.
	fetchTime = 10 * time.Second
	// fetchPause is the time between two fetches. Neither a failure nor a token of an
	// unknown key shortens it.
	fetchPause = 10 * time.Second
	// keysAge is how long keys are trusted: the issuer may have revoked one.
	keysAge = 10 * time.Minute
	// patience is how long a token of a known key waits for newer keys.
	patience = time.Second
	// maxDocument bounds the issuer's answers, in bytes.
	maxDocument = 1 << 20
)

// issuerKeys are the keys with which an issuer signs its tokens. They are fetched when
// a token needs them, by one request for all that wait.
//
// They are our own: MicahParks/jwkset (v0.11.4) saves 90 lines and fails six of our
// tests. It refuses a set for one key that is broken, keeps keys for ever unless a
// goroutine renews them, does not fetch again for a key that kept its id, and has no
// pause between fetches while the issuer is down.
type issuerKeys struct {
	opts   TokenOptions
	flight singleflight.Group

	mu      sync.Mutex
	keys    []jose.JSONWebKey
	fetched time.Time // when the keys arrived
	tried   time.Time // when the last fetch ended
	fault   error     // of the last fetch
	late    bool      // the last fetch takes long or failed
}

// find returns the keys that a token may be signed with. A token names its key by id;
// one that does not may be signed with any.
func (k *issuerKeys) find(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	if err := k.update(ctx, id); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	keys := k.namedLocked(id)
	switch {
	case len(keys) > 0:
		return keys, nil
	case k.fault != nil:
		return nil, k.fault
	}
	return nil, invalid("the issuer has no such key", nil)
}

// update fetches the keys if the one of the id is unknown or the keys are old. A token
// of a known key waits briefly, and not at all while the issuer is late.
func (k *issuerKeys) update(ctx context.Context, id string) error {
	k.mu.Lock()
	known, stale, late := len(k.namedLocked(id)) > 0, time.Since(k.fetched) >= keysAge, k.late
	k.mu.Unlock()
	switch {
	case !known:
		return k.fetch(ctx, nil)
	case stale && late:
		return k.fetch(ctx, time.After(0))
	case stale:
		return k.fetch(ctx, time.After(patience))
	}
	return nil
}

// namedLocked returns the keys with an id, or all for an empty one.
func (k *issuerKeys) namedLocked(id string) []jose.JSONWebKey {
	var keys []jose.JSONWebKey
	for _, key := range k.keys {
		if id == "" || key.KeyID == id {
			keys = append(keys, key)
		}
	}
	return keys
}

// fetch fetches the keys unless fetchPause forbids it. It joins a fetch that is under
// way. It waits until the fetch has ended or enough receives; neither that nor the end
// of ctx stops the fetch. Its result is kept in k.
func (k *issuerKeys) fetch(ctx context.Context, enough <-chan time.Time) error {
	if !k.mayFetch() {
		return nil
	}
	fetched := k.flight.DoChan("", func() (any, error) {
		k.refresh(context.WithoutCancel(ctx))
		return nil, nil //nolint:nilnil // the result is kept for others too
	})
	select {
	case <-fetched:
	case <-enough:
		k.mu.Lock()
		k.late = true
		k.mu.Unlock()
	case <-ctx.Done():
		return &execution.Error{Code: execution.Cancelled, Message: "the caller left", Err: context.Cause(ctx)}
	}
	return nil
}

func (k *issuerKeys) mayFetch() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Since(k.tried) >= fetchPause
}

// refresh replaces the keys by the issuer's. If that fails, the known ones stay.
func (k *issuerKeys) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	keys, err := k.request(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tried, k.fault, k.late = time.Now(), nil, err != nil
	if err != nil {
		k.fault = &execution.Error{
			Code: execution.Unavailable, Message: "the token cannot be verified: its issuer does not return its keys; try again", Err: err,
		}
		return
	}
	k.keys, k.fetched = keys, k.tried
}

// request requests the keys from the issuer.
func (k *issuerKeys) request(ctx context.Context) ([]jose.JSONWebKey, error) {
	address := k.opts.KeysURL
	if address == "" {
		var err error
		if address, err = k.discover(ctx); err != nil {
			return nil, err
		}
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := k.get(ctx, address, &set); err != nil {
		return nil, err
	}
	return usable(set.Keys), nil
}

// usable returns the keys of a set that can verify signatures. The others are ignored,
// as RFC 7517, section 5, demands; go-jose (v4.1.5) would refuse the whole set.
func usable(texts []json.RawMessage) []jose.JSONWebKey {
	var keys []jose.JSONWebKey
	for _, text := range texts {
		var key jose.JSONWebKey
		if err := json.Unmarshal(text, &key); err == nil && key.Use != "enc" && key.Valid() && key.IsPublic() {
			keys = append(keys, key)
		}
	}
	return keys
}

// discover returns the URL of the issuer's keys, which the issuer publishes
// (https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig).
func (k *issuerKeys) discover(ctx context.Context) (string, error) {
	address := strings.TrimSuffix(k.opts.Issuer, "/") + "/.well-known/openid-configuration"
	var found struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := k.get(ctx, address, &found); err != nil {
		return "", err
	}
	if found.Issuer != k.opts.Issuer || found.Keys == "" {
		return "", fmt.Errorf("%s describes the issuer %q with the jwks_uri %q; it must describe %q and have one", address, found.Issuer, found.Keys, k.opts.Issuer)
	}
	return found.Keys, nil
}

// get requests a JSON document and decodes it.
func (k *issuerKeys) get(ctx context.Context, address string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := k.opts.Client.Do(req)
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
