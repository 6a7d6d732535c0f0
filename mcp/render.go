package mcp

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// textBuilder writes what a model reads: what the program printed, and remarks
// of ours in brackets, each on lines of its own.
type textBuilder struct{ text strings.Builder }

// section begins a new line and writes to it.
func (b *textBuilder) section(format string, args ...any) {
	if written := b.text.String(); written != "" && !strings.HasSuffix(written, "\n") {
		b.text.WriteString("\n")
	}
	_, _ = fmt.Fprintf(&b.text, format, args...)
}

// remark writes a remark of ours.
func (b *textBuilder) remark(format string, args ...any) {
	b.section("["+format+"]\n", args...)
}

// ending says how a program ended and what to do next, unless all went well.
func (s *Server) ending(r *execution.Result) string {
	what := r.End.Message
	switch {
	case r.End.Reason == execution.Exited && r.Failed():
		what = joinClauses(fmt.Sprintf("exit code %d", *r.ExitCode), what)
	case r.End.Reason == execution.Signal:
		what = joinClauses("ended by "+r.End.Signal, what)
	case r.End.Reason == execution.Exited && what == "":
		return ""
	case what == "":
		what = strings.ReplaceAll(string(r.End.Reason), "_", " ")
	}
	return strings.TrimSuffix(sentence(what)+" "+s.nextStep(r), " ")
}

// nextStep says what a model can do about an end that the sandbox brought about.
func (s *Server) nextStep(r *execution.Result) string {
	settings := s.opts.Settings
	switch r.End.Reason {
	case execution.Timeout:
		return fmt.Sprintf("Raise timeout_ms (at most %d), or do less.", s.opts.Limits.MaxTimeout.Milliseconds())
	case execution.CPULimit:
		return "Use a faster method, or split the work over several calls."
	case execution.MemoryLimit:
		return fmt.Sprintf("The limit is %d MB, files included: work on less at a time, or use smaller types.", settings.MemoryBytes>>20)
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

// sentence gives a clause a capital and a full stop.
func sentence(clause string) string {
	first, size := utf8.DecodeRuneInString(clause)
	return string(unicode.ToUpper(first)) + strings.TrimSuffix(clause[size:], ".") + "."
}

// words writes a duration as a person would.
func words(d time.Duration) string {
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}} {
		if d >= 2*unit.size || d == unit.size {
			n := int64(d / unit.size)
			if n == 1 {
				return "1 " + unit.name
			}
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}
