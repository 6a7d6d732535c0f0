package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Run runs a program. What it returns is complete: the caller renews the
// sandbox or closes it. After a run in which anything odd happened the sandbox
// is not reusable: a program that came near its limits may have left something, and
// a supervisor that breaks the protocol cannot be trusted.
func (s *Sandbox) Run(ctx context.Context, req execution.Request, limits execution.Limits) (*execution.Result, error) {
	s.pulse.set(busy)
	t := pythonTask(req, limits)
	result, odd, err := s.run(ctx, &t)
	if errors.Is(err, errSilent) {
		s.log.WarnContext(ctx, "a sandbox does not answer and is destroyed; the program had not started")
	}
	if odd || err != nil {
		s.odd.Store(true)
	}
	return result, err
}

func (s *Sandbox) run(ctx context.Context, t *task) (_ *execution.Result, odd bool, _ error) {
	d := s.newDispatch(t)
	defer d.end()
	if err := s.send(ctx, t, t.head()); err != nil {
		return nil, false, s.unsent(ctx, err, t.limits)
	}
	if err := d.awaitStart(ctx); err != nil {
		s.distrust(err)
		return nil, false, unstarted(err, t.limits)
	}
	r, err := d.report(ctx, graceTime)
	s.distrust(err)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, false, context.Cause(ctx)
	case err != nil:
		d.log(ctx, "a run's report is not whole", err)
		r.fail(err, s.loss(ctx, r))
	}
	result := d.result(r)
	result.Stages.Clean, result.Stages.Prepare = s.prepared.clean, s.prepared.fork
	return result, r.odd(), nil
}

// unsent returns the error of a task that could not be sent: the supervisor's own,
// where it stopped reading because files did not fit.
func (s *Sandbox) unsent(ctx context.Context, err error, limits execution.Limits) error {
	if !errors.Is(err, execution.ErrNotStarted) || errors.Is(err, errSilent) || ctx.Err() != nil {
		return err
	}
	timer := time.NewTimer(faultTime)
	defer timer.Stop()
	if f, silent := s.next(ctx, timer.C); silent == nil && f.kind == kindFault {
		return unstarted(&refusalError{parseFields(f.payload)}, limits)
	}
	return err
}

// unstarted returns the error of a program that was not started.
func unstarted(cause error, limits execution.Limits) error {
	if refused, ok := errors.AsType[*refusalError](cause); ok && refused.values["full"] == "1" {
		return &execution.Error{Code: execution.TooLarge, Err: cause, Message: fmt.Sprintf(
			"code and files do not fit in the workspace of %d MB", limits.WorkspaceBytes>>20)}
	}
	return fmt.Errorf("%w: %w", execution.ErrNotStarted, cause)
}

// prepared is how a supervisor got ready for another run.
type prepared struct{ clean, fork time.Duration }

func (p *prepared) parse(payload []byte) error {
	values := parseFields(payload)
	clean, err := values.number("clean_us", maxMicroseconds)
	if err != nil {
		return err
	}
	fork, err := values.number("prepare_us", maxMicroseconds)
	*p = prepared{clean: time.Duration(clean) * time.Microsecond, fork: time.Duration(fork) * time.Microsecond}
	return err
}
