package pool

import (
	"context"
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
)

// digestAge is how long a digest is used before the image is resolved again, so that a tag
// that moves is noticed. Resolving takes the engine 1 to 2 ms.
const digestAge = 10 * time.Second

// resolveTime bounds the pull or the build of an image.
const resolveTime = 30 * time.Minute

// Resolver returns the digest of an image reference. It pulls or builds an image that is
// missing.
type Resolver interface {
	Resolve(ctx context.Context, image string) (digest string, err error)
}

// Digests caches the digests of image references for 10 seconds. It is safe for concurrent
// use.
type Digests struct {
	resolver Resolver
	known    *lru.Cache[string, digest]
	flight   singleflight.Group
}

type digest struct {
	value string
	at    time.Time
}

// NewDigests returns a Digests for up to size references. It fails if size is not positive.
func NewDigests(resolver Resolver, size int) (*Digests, error) {
	known, err := lru.New[string, digest](size)
	if err != nil {
		return nil, fmt.Errorf("digests: %w", err)
	}
	return &Digests{resolver: resolver, known: known}, nil
}

// Get returns the digest of an image. Concurrent calls for one image share one resolution,
// which goes on when a caller's context ends. That caller's error is the cause of its
// context. Errors are not cached.
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
