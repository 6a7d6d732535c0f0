package execution_test

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

func TestErrorText(t *testing.T) {
	fields := []execution.FieldError{
		{Field: execution.FieldFiles, Index: 2, Message: "must not be empty", Value: ""},
		{Field: execution.FieldTimeout, Message: "must be positive", Value: -time.Second},
	}
	for name, test := range map[string]struct {
		err           *execution.Error
		text, explain string
	}{
		"message": {
			&execution.Error{Message: "no sandbox"}, "no sandbox", "no sandbox",
		},
		"cause": {
			&execution.Error{Message: "no sandbox", Err: io.ErrUnexpectedEOF}, "no sandbox: unexpected EOF", "no sandbox",
		},
		"fields": {
			&execution.Error{Message: "the request is not valid", Fields: fields},
			`files[2].path must not be empty (it is ""); timeout must be positive (it is -1s)`,
			`files[2].path must not be empty (it is ""); timeout must be positive (it is -1s)`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.err.Error(); got != test.text {
				t.Errorf("Error: %q", got)
			}
			if got := test.err.Explain(); got != test.explain {
				t.Errorf("Explain: %q", got)
			}
		})
	}
}

func TestErrorUnwraps(t *testing.T) {
	if err := (&execution.Error{Err: io.EOF}); !errors.Is(err, io.EOF) {
		t.Error("the cause is lost")
	}
}

func TestAsError(t *testing.T) {
	busy := &execution.Error{Code: execution.Busy, Message: "later"}
	if got := execution.AsError(fmt.Errorf("pool: %w", busy)); got != busy {
		t.Errorf("a wrapped error became %v", got)
	}
	foreign := errors.New("password is hunter2")
	got := execution.AsError(foreign)
	if got.Code != execution.Internal || got.Explain() != "internal error" || !errors.Is(got, foreign) {
		t.Errorf("a foreign error became %+v", got)
	}
}

func TestResult(t *testing.T) {
	zero, one := 0, 1
	for name, test := range map[string]struct {
		result           execution.Result
		timedOut, failed bool
	}{
		"success": {execution.Result{ExitCode: &zero, End: execution.End{Reason: execution.Exited}}, false, false},
		"failure": {execution.Result{ExitCode: &one, End: execution.End{Reason: execution.Exited}}, false, true},
		"timeout": {execution.Result{End: execution.End{Reason: execution.Timeout}}, true, true},
	} {
		if test.result.TimedOut() != test.timedOut || test.result.Failed() != test.failed {
			t.Errorf("%s: timed out %v, failed %v", name, test.result.TimedOut(), test.result.Failed())
		}
	}
}
