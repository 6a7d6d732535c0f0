package pool

import (
	"context"

	"github.com/vivarium-sandbox/vivarium/execution"
)

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
