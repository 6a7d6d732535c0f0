package runner

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// maxGone is how much is kept of why a supervisor ends, in bytes. Backends keep as much of
// its stderr.
const maxGone = 2048

// ErrExplained is the error of a sandbox that was not opened, and whose supervisor said why.
var ErrExplained = errors.New("the supervisor ended for a reason that it gave")

// explainedError is an error whose text has the supervisor's reason.
type explainedError struct{ error }

func (explainedError) Is(target error) bool { return target == ErrExplained }

func (e explainedError) Unwrap() error { return e.error }

// said returns why the supervisor ended, in its words, or "" if it said nothing. A backend
// need not have its stderr.
func (s *stream) said() string {
	text := s.instance.Diagnostics()
	if gone := s.gone.Load(); gone != nil && text == "" {
		return *gone
	}
	return text
}

// explained returns the error of a supervisor that did not start, with what it said.
func (s *stream) explained(err error) error {
	said := s.said()
	if said == "" {
		return err
	}
	cause, text := diagnosis(said)
	if text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return explainedError{execution.WithCause(cause, err)}
}

// diagnosis splits what a supervisor said of its end into the code of the
// cause, if it sent one, and the text for people. The code is a line of its own,
// "cause=CODE", since a runtime may write before it.
func diagnosis(said string) (execution.Cause, string) {
	const prefix = "cause="
	before, code, found := strings.Cut("\n"+said, "\n"+prefix)
	if !found {
		return "", said
	}
	code, after, _ := strings.Cut(code, "\n")
	return execution.SupervisorCause(code), strings.TrimPrefix(before+"\n"+after, "\n")
}

// diagnostics returns what the supervisor said of its end for people.
func (s *stream) diagnostics() string {
	_, text := diagnosis(s.said())
	return text
}
