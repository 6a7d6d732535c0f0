package pool

import (
	"context"
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/vivarium-sandbox/vivarium/execution"
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

// Keeper leases sandboxes of one image, with one set of settings. It
// implements [execution.Sandboxes].
type Keeper struct {
	Pool     *Pool
	Digests  *Digests
	Image    string
	Settings execution.Settings
}

// Lease waits for a sandbox of the image as it is now.
func (k *Keeper) Lease(ctx context.Context) (execution.Sandbox, func(), error) {
	spec, err := k.spec(ctx)
	if err != nil {
		return nil, nil, err
	}
	return k.Pool.Lease(ctx, spec)
}

// Warm fetches or builds the image, if need be, and starts filling the pool.
func (k *Keeper) Warm(ctx context.Context) error {
	spec, err := k.spec(ctx)
	if err != nil {
		return err
	}
	k.Pool.Warm(spec)
	return nil
}

// Known gives the kind of sandbox that is leased, once the image's digest is
// known.
func (k *Keeper) Known() (execution.Spec, bool) {
	known, ok := k.Digests.known.Peek(k.Image)
	return execution.Spec{Image: known.value, Settings: k.Settings}, ok
}

func (k *Keeper) spec(ctx context.Context) (execution.Spec, error) {
	value, err := k.Digests.Get(ctx, k.Image)
	if err != nil {
		return execution.Spec{}, err
	}
	return execution.Spec{Image: value, Settings: k.Settings}, nil
}

// Health says why no sandbox can be had at the moment, or nil. It asks nobody:
// it tells what is known.
func (k *Keeper) Health() error {
	if k.Pool.Stats().Idle > 0 {
		return nil
	}
	spec, ok := k.Known()
	if !ok {
		return &execution.Error{Code: execution.Unavailable, Message: "no sandbox has been prepared yet"}
	}
	return k.Pool.Fault(spec)
}
