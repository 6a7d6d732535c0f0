package pool

import (
	"context"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Keeper leases sandboxes of one image with one set of settings. It implements
// [execution.Sandboxes].
type Keeper struct {
	Pool     *Pool
	Digests  *Digests
	Image    string
	Settings execution.Settings
}

// Lease waits for a sandbox of the image's current digest. See [Pool.Lease].
func (k *Keeper) Lease(ctx context.Context) (execution.Sandbox, func(), error) {
	spec, err := k.spec(ctx)
	if err != nil {
		return nil, nil, err
	}
	return k.Pool.Lease(ctx, spec)
}

// Warm pulls or builds the image if it is missing, and starts to fill the pool.
func (k *Keeper) Warm(ctx context.Context) error {
	spec, err := k.spec(ctx)
	if err != nil {
		return err
	}
	k.Pool.Warm(spec)
	return nil
}

// Known returns the template that is leased. It returns false as long as the image has not
// been resolved.
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

// Health returns nil if a sandbox is idle or, as far as is known, can be started. Otherwise
// it returns the reason. It does not start a sandbox, and does not call the engine.
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
