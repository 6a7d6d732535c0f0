package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// exchange is a task that was sent: its supervisor starts it and reports it.
type exchange struct {
	sandbox *Sandbox
	task    *task
	began   time.Time // when the sending of the task began
	timer   *time.Timer
}

func (s *Sandbox) newExchange(t *task) *exchange {
	return &exchange{sandbox: s, task: t, began: time.Now()}
}

// errDisorder means that the supervisor did not receive the task in order, and does
// not begin it.
var errDisorder = errors.New("the task did not arrive in order")

// refusalError is the error of a task that the supervisor refuses.
type refusalError struct{ values fields }

func (e *refusalError) Error() string { return fmt.Sprintf("refused: %.300q", e.values["message"]) }

// awaitStart waits until the supervisor starts the task.
func (x *exchange) awaitStart(ctx context.Context) error {
	x.timer = time.NewTimer(stageTime)
	f, err := x.sandbox.next(ctx, x.timer.C)
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
func (x *exchange) report(ctx context.Context, grace time.Duration) (*report, error) {
	r := newReport(ctx, x.task)
	r.sent = x.began
	if x.task.started != nil {
		x.task.started()
	}
	x.timer.Reset(x.task.timeout + grace)
	err := (&collection{sandbox: x.sandbox, report: r, keep: x.task.keep, timer: x.timer, left: collectTime}).collect(ctx)
	return r, err
}

// result makes the result of a report.
func (x *exchange) result(r *report) *execution.Result {
	result := r.result()
	result.Stages = execution.Stages{
		Send: r.started.Sub(x.began), Run: r.facts.wall, Kill: r.facts.kill,
		Collect: max(0, time.Since(r.started)-r.facts.wall-r.facts.kill),
	}
	return result
}

// end releases the timer.
func (x *exchange) end() {
	if x.timer != nil {
		x.timer.Stop()
	}
}

// log logs a failure with what the supervisor wrote to its stderr.
func (x *exchange) log(ctx context.Context, message string, cause error) {
	x.sandbox.log.WarnContext(ctx, message, "error", cause, "diagnostics", shown(x.sandbox.instance.Diagnostics(), maxReason))
}
