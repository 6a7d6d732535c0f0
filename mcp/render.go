package mcp

import (
	"fmt"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// render makes the text that a model reads: what the program printed first,
// then how it ended, then its files.
func render(r *execution.Result) string {
	var b strings.Builder
	b.WriteString(r.Stdout)
	section := func(format string, args ...any) {
		if b.Len() > 0 && !strings.HasSuffix(b.String(), "\n") {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, format, args...)
	}
	if r.Stderr != "" {
		section("[stderr]\n%s", r.Stderr)
	}
	if ending := ending(r); ending != "" {
		section("[%s]\n", ending)
	}
	for _, file := range r.Files {
		section("[file written: %s, %d bytes]\n", file.Path, file.Size)
	}
	for _, file := range r.Skipped {
		section("[file not returned: %s: %s]\n", file.Path, file.Reason)
	}
	if b.Len() == 0 {
		return "[the program ended without output: print what you want to see]\n"
	}
	return b.String()
}

// ending says how a program ended, unless all went well.
func ending(r *execution.Result) string {
	text := string(r.End.Reason)
	switch {
	case r.End.Reason == execution.Exited && !r.Failed():
		return r.End.Message
	case r.End.Reason == execution.Exited:
		text = fmt.Sprintf("exit code %d", *r.ExitCode)
	case r.End.Reason == execution.Signal:
		text = "ended by " + r.End.Signal
	case r.End.Reason == execution.Timeout:
		text = "timed out: raise timeout_ms, or do less"
	}
	if r.End.Message != "" {
		text += ": " + r.End.Message
	}
	return text
}
