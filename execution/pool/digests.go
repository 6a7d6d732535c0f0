package pool

import (
	"context"
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
)

// digestAge is how long a digest is believed. A tag that moves is seen after
// it; looking costs the engine 1 to 2 ms.
const digestAge = 10 * time.Second

// resolveTime bounds the fetching or building of an image.
const resolveTime = 30 * time.Minute

// Resolver finds the digest of an image reference, and fetches or builds an
// image that is missing.
type Resolver interface {
	Resolve(ctx context.Context, image string) (digest string, err error)
}

// Digests remembers what image references stand for.
type Digests struct {
	resolver Resolver
	known    *lru.Cache[string, digest]
	flight   singleflight.Group
}

type digest struct {
	value string
	at    time.Time
}

// NewDigests makes a Digests that remembers up to size references.
func NewDigests(resolver Resolver, size int) (*Digests, error) {
	known, err := lru.New[string, digest](size)
	if err != nil {
		return nil, fmt.Errorf("digests: %w", err)
	}
	return &Digests{resolver: resolver, known: known}, nil
}

// Get gives the digest of an image. Whoever asks for the same image meanwhile
// waits for the same answer, and a caller who leaves does not stop the work.
func (d *Digests) Get(ctx context.Context, image string) (string, error) {
	if known, ok := d.known.Get(image); ok && time.Since(known.at) < digestAge {
		return known.value, nil
	}
	result := d.flight.DoChan(image, func() (any, error) {
		shared, cancel := context.WithTimeout(context.WithoutCancel(ctx), resolveTime)
		defer cancel()
		value, err := d.resolver.Resolve(shared, image)
		if err == nil {
			d.known.Add(image, digest{value: value, at: time.Now()})
		}
		return value, err
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return "", r.Err
		}
		value, _ := r.Val.(string)
		return value, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
