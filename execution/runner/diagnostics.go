package runner

import (
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// diagnosis splits what a supervisor wrote to its stderr into the code of the
// cause, if it sent one, and the text for people. The code is a line of its own,
// "cause=CODE", since a runtime may write before it.
func diagnosis(stderr string) (execution.Cause, string) {
	const prefix = "cause="
	before, code, found := strings.Cut("\n"+stderr, "\n"+prefix)
	if !found {
		return "", stderr
	}
	code, after, _ := strings.Cut(code, "\n")
	return execution.SupervisorCause(code), strings.TrimPrefix(before+"\n"+after, "\n")
}

// diagnostics returns what the supervisor of a sandbox wrote for people.
func (s *stream) diagnostics() string {
	_, text := diagnosis(s.instance.Diagnostics())
	return text
}
