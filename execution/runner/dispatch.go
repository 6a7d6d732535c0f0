package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// dispatch is a task that a supervisor gets, starts and reports.
type dispatch struct {
	stream *stream
	task   *task
	began  time.Time // when the sending of the task began
	timer  *time.Timer
}

func (s *stream) newDispatch(t *task) *dispatch {
	return &dispatch{stream: s, task: t, began: time.Now()}
}

// errDisorder means that the supervisor did not receive the task in order, and does
// not begin it.
var errDisorder = errors.New("the task did not arrive in order")

// refusalError is the error of a task that the supervisor refuses.
type refusalError struct{ values fields }

func (e *refusalError) Error() string { return fmt.Sprintf("refused: %.300q", e.values["message"]) }

// awaitStart waits until the supervisor starts the task.
func (d *dispatch) awaitStart(ctx context.Context) error {
	d.timer = time.NewTimer(stageTime)
	f, err := d.stream.next(ctx, d.timer.C)
	switch {
	case err != nil:
		return err
	case f.kind == kindLost:
		return errDisorder
	case f.kind == kindFault:
		return &refusalError{parseFields(f.payload)}
	case f.kind != kindStarted || len(f.payload) != 0:
		return fmt.Errorf("%w: frame %q before the start", errFrame, f.kind)
	}
	return nil
}

// report takes in the report of a task that has started. It may come grace after the
// task's timeout. The error explains why the report is not whole.
func (d *dispatch) report(ctx context.Context, grace time.Duration) (*report, error) {
	r := newReport(ctx, d.task)
	r.sent = d.began
	if d.task.started != nil {
		d.task.started()
	}
	d.timer.Reset(d.task.timeout + grace)
	err := (&collection{stream: d.stream, report: r, keep: d.task.keep, timer: d.timer, left: collectTime}).collect(ctx)
	return r, err
}

// result makes the result of a report.
func (d *dispatch) result(r *report) *execution.Result {
	result := r.result()
	result.Stages = execution.Stages{
		Send: r.started.Sub(d.began), Run: r.facts.wall, Kill: r.facts.kill,
		Collect: max(0, time.Since(r.started)-r.facts.wall-r.facts.kill),
	}
	return result
}

// end releases the timer.
func (d *dispatch) end() {
	if d.timer != nil {
		d.timer.Stop()
	}
}

// log logs a failure with what the supervisor wrote to its stderr.
func (d *dispatch) log(ctx context.Context, message string, cause error) {
	d.stream.log.WarnContext(ctx, message, "error", cause, "diagnostics", shown(d.stream.diagnostics(), maxReason))
}
