package runner

import (
	"context"
	"errors"
	"fmt"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const protocolVersion = 3

// greeting is what a supervisor says of itself when it is ready.
type greeting struct {
	python  string
	preload string // what could not be imported ahead, and why
	bare    bool   // modules were not imported ahead, as was asked
	many    bool   // it serves more than one run
}

// begin waits until the supervisor of a new sandbox is ready. When it fails, it destroys
// the instance.
func (s *stream) begin(ctx context.Context) (greeting, error) {
	s.pulse.set(starting)
	said, err := s.handshake(ctx)
	if err == nil {
		s.pulse.set(s.rest())
		return said, nil
	}
	closeErr := s.Close()
	return said, errors.Join(fmt.Errorf("the supervisor did not start: %w", s.explained(err)), closeErr)
}

func (s *stream) handshake(ctx context.Context) (greeting, error) {
	f, err := s.next(ctx, nil)
	if err != nil {
		return greeting{}, err
	}
	if f.kind != kindReady {
		return greeting{}, fmt.Errorf("%w: first frame %q", errFrame, f.kind)
	}
	return parseGreeting(parseFields(f.payload))
}

func parseGreeting(values fields) (greeting, error) {
	if version, err := values.number("protocol", 1<<20); err != nil || version != protocolVersion {
		return greeting{}, fmt.Errorf("%w: protocol %.20q, not %d", errFrame, values["protocol"], protocolVersion)
	}
	python := values["python"]
	if len(python) > 20 {
		return greeting{}, fmt.Errorf("%w: Python %.40q", errFrame, python)
	}
	return greeting{
		python: python, preload: shown(values["preload_failed"], maxShownPath),
		bare: values["bare"] == "1", many: values["isolation"] == string(execution.IsolationRun),
	}, nil
}
