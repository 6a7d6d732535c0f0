//go:build !linux

package local

import (
	"context"
	"errors"
	"runtime"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Backend always fails: this system has no Linux namespaces.
type Backend struct{}

// New returns a backend that always fails.
func New(Options) (*Backend, error) { return &Backend{}, nil }

func elsewhere() error {
	return &execution.Error{
		Code:    execution.Unavailable,
		Message: "sandboxes without an engine need Linux, and this is " + runtime.GOOS + ": start Docker Desktop, or install an engine (brew install colima docker && colima start)",
		Err:     errors.ErrUnsupported,
	}
}

// InstanceID returns "".
func (b *Backend) InstanceID() string { return "" }

// Close does nothing.
func (b *Backend) Close() error { return nil }

// machineMemory returns zero: it is not known.
func machineMemory() (int64, error) { return 0, nil }

// Interpreter fails.
func (b *Backend) Interpreter(context.Context) (string, error) { return "", elsewhere() }

// Walls returns "none".
func (b *Backend) Walls() string { return "none" }

// Resolve fails.
func (b *Backend) Resolve(context.Context, string) (string, error) { return "", elsewhere() }

// Start fails.
func (b *Backend) Start(context.Context, execution.Spec) (execution.Instance, error) {
	return nil, elsewhere()
}

// Sweep finds nothing.
func (b *Backend) Sweep(context.Context) (int, error) { return 0, nil }

// Health returns why there are no sandboxes.
func (b *Backend) Health(context.Context) error { return elsewhere() }

// Attach fails.
func (b *Backend) Attach(context.Context, string) (execution.Instance, error) {
	return nil, elsewhere()
}

// Find fails.
func (b *Backend) Find(context.Context, string) (execution.SessionInfo, error) {
	return execution.SessionInfo{}, elsewhere()
}

// Owned fails.
func (b *Backend) Owned(context.Context, execution.Owner) ([]execution.SessionInfo, error) {
	return nil, elsewhere()
}

// Count fails.
func (b *Backend) Count(context.Context, execution.Owner, []string) (own, all int, err error) {
	return 0, 0, elsewhere()
}

// Announce fails.
func (b *Backend) Announce(context.Context, execution.SessionInfo) error { return elsewhere() }

// End fails.
func (b *Backend) End(context.Context, string) error { return elsewhere() }
