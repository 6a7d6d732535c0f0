// Package executiontest helps to test what implements or uses the interfaces
// of package execution: fakes that live in memory, and a suite that every
// executor must pass, whatever backend it stands on.
//
// The fakes run Go functions instead of Python. They know nothing of images,
// walls or limits: those are the business of the tests of a real backend.
package executiontest

import (
	"context"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Program is what a fake runs instead of Python. Its context ends when the
// sandbox does. A nil Program prints nothing and exits with 0.
type Program func(ctx context.Context, req execution.Request) Outcome

// Outcome is what a [Program] comes to.
type Outcome struct {
	// Stdout and Stderr are what it printed.
	Stdout, Stderr string
	// ExitCode is its exit status, from 0 to 255.
	ExitCode int
	// Files are what it made or changed. Of each, Path and Content count.
	Files []execution.File
}

func (p Program) run(ctx context.Context, req execution.Request) Outcome {
	if p == nil {
		return Outcome{}
	}
	return p(ctx, req)
}
