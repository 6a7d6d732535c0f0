package httpapi

import "github.com/vivarium-sandbox/vivarium/execution"

// locator returns where a request has a field of the domain's.
type locator func(execution.FieldError) []any

// inBody is the locator of requests in JSON.
func inBody(f execution.FieldError) []any {
	switch f.Field {
	case execution.FieldTimeout:
		return []any{"body", "timeout_ms"}
	case execution.FieldCommand:
		return []any{"body", "cmd"}
	case execution.FieldFiles:
		return []any{"body", "files", f.Index, "path"}
	case execution.FieldEnv:
		if f.Variable != "" {
			return []any{"body", envField, execution.Clip(f.Variable)}
		}
		return []any{"body", envField}
	case execution.FieldArgs:
		if f.Index >= 0 {
			return []any{"body", "args", f.Index}
		}
		return []any{"body", "args"}
	case execution.FieldPath, execution.FieldTarget, execution.FieldArchive:
	}
	return inURL(f)
}

// inURL is the locator of a request for one file of a session.
func inURL(f execution.FieldError) []any {
	switch f.Field {
	case execution.FieldTarget:
		return []any{"body", "path"}
	case execution.FieldArchive:
		return []any{"body", clip(f.Value)} // the name of the entry
	case execution.FieldPath, execution.FieldFiles, execution.FieldTimeout, execution.FieldCommand,
		execution.FieldEnv, execution.FieldArgs:
	}
	return []any{"path", "path"}
}
