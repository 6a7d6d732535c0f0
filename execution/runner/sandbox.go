package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	renewTime = 5 * time.Second // to clean up and fork again
	resetTime = 1 * time.Minute // to start anew, with the modules to preload
)

// Sandbox is a sandbox that runs programs. It implements [execution.Sandbox].
type Sandbox struct {
	*stream
	greeting
	odd      atomic.Bool // something happened after which it must serve no other run
	prepared prepared    // how it got ready for the next run
}

// Open waits until the supervisor of a started instance says that it is ready.
// When it fails, it destroys the instance. It logs what is odd about the sandbox.
func Open(ctx context.Context, instance execution.Instance, log *slog.Logger) (*Sandbox, error) {
	s := &Sandbox{stream: newStream(instance, log)}
	go s.read(atOnce)
	var err error
	if s.greeting, err = s.begin(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Python is the version of the sandbox's Python, as "3.13.5".
func (s *Sandbox) Python() string { return s.python }

// Bare reports whether modules were not preloaded because of Spec.Bare.
func (s *Sandbox) Bare() bool { return s.bare }

// PreloadFault returns what could not be imported ahead, and why. Empty where all could.
func (s *Sandbox) PreloadFault() string { return s.preload }

// Reusable reports whether the sandbox may serve another run.
func (s *Sandbox) Reusable() bool { return s.many && !s.odd.Load() && !s.Silent() }

// Doomed is closed when the sandbox is to go soon.
func (s *Sandbox) Doomed() <-chan struct{} {
	if instance, able := s.instance.(execution.Doomed); able {
		return instance.Doomed()
	}
	return nil
}

// errOdd is the error of a sandbox that is given up.
var errOdd = errors.New("the sandbox must not be used again")

// Renew waits until the supervisor has cleaned up after a run and is ready for
// another.
func (s *Sandbox) Renew(ctx context.Context) error {
	if !s.Reusable() {
		return errOdd
	}
	timer := time.NewTimer(renewTime)
	defer timer.Stop()
	f, err := s.next(ctx, timer.C)
	if err == nil && f.kind != kindReady {
		err = fmt.Errorf("%w: frame %q instead of ready", errFrame, f.kind)
	}
	if err == nil {
		err = s.prepared.parse(f.payload)
	}
	if err != nil {
		s.odd.Store(true)
		s.distrust(err)
		if text := s.diagnostics(); text != "" {
			err = fmt.Errorf("%w: %s", err, shown(text, maxShownPath))
		}
		return err
	}
	s.pulse.set(s.rest())
	return nil
}

// Resettable reports whether the sandbox, which serves many runs, can be reset. Its
// instance must be able to, and its supervisor must answer and have kept to the protocol.
func (s *Sandbox) Resettable() bool {
	_, able := s.instance.(execution.Resetter)
	return able && s.many && !s.broken.Load() && !s.Silent()
}

// Reset has the sandbox start anew in place, whatever it is doing.
func (s *Sandbox) Reset(ctx context.Context) (execution.Sandbox, error) {
	instance, able := s.instance.(execution.Resetter)
	if !able || !s.Resettable() {
		return nil, errOdd
	}
	ctx, cancel := context.WithTimeout(ctx, resetTime)
	defer cancel()
	s.pulse.stop()
	s.stopReading()
	anew, err := instance.Reset(ctx)
	if err != nil {
		return nil, fmt.Errorf("the sandbox could not be reset: %w", err)
	}
	<-s.ended
	opened, err := Open(ctx, anew, s.log)
	if err != nil {
		return nil, err
	}
	return opened, nil
}
