package render

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// addEnding appends how the program ended and what the model can do next, unless the program
// succeeded and there is nothing to report.
func (p *page) addEnding() {
	end := p.outcome.Result.End
	what := end.Message
	switch {
	case end.Reason == execution.Exited && p.outcome.Result.Failed():
		what = joinClauses(fmt.Sprintf("exit code %d", *p.outcome.Result.ExitCode), what)
	case end.Reason == execution.Signal:
		what = joinClauses("ended by "+end.Signal, what)
	case end.Reason == execution.Exited && what == "":
		return
	case what == "":
		what = strings.ReplaceAll(string(end.Reason), "_", " ")
	}
	p.text.remark("%s", strings.TrimSuffix(sentence(what)+" "+p.nextStep(end.Reason), " "))
}

// nextStep returns what a model can do about a limit of the sandbox.
func (r *Renderer) nextStep(reason execution.Reason) string {
	settings := r.opts.Settings
	switch reason {
	case execution.Timeout:
		return fmt.Sprintf("Raise timeout_ms (at most %d), or do less.", r.opts.Limits.MaxTimeout.Milliseconds())
	case execution.CPULimit:
		return "Use a faster method, or split the work over several calls."
	case execution.MemoryLimit:
		return fmt.Sprintf("The sandbox has %d MB, files included: work on less at a time, or use smaller types.", settings.MemoryBytes>>20)
	case execution.ProcessLimit:
		return fmt.Sprintf("The limit is %d: start fewer.", settings.Processes)
	case execution.WorkspaceLimit:
		return fmt.Sprintf("The working directory has %d MB and /tmp %d MB: write less, or delete what is not needed.",
			settings.WorkspaceBytes>>20, settings.TempBytes>>20)
	case execution.SandboxLost:
		return "Try again, with less memory."
	default:
		return ""
	}
}

func joinClauses(first, second string) string {
	if second == "" {
		return first
	}
	return first + ": " + second
}

// sentence adds a capital letter and a full stop to a clause.
func sentence(clause string) string {
	first, size := utf8.DecodeRuneInString(clause)
	return string(unicode.ToUpper(first)) + strings.TrimSuffix(clause[size:], ".") + "."
}
