package mcp

import (
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// The arguments of the tools. A field's tag is the argument's name.
type (
	pythonArguments struct {
		Code      *string     `json:"code"`
		Session   *string     `json:"session"`
		Files     []inputFile `json:"files"`
		TimeoutMS *int64      `json:"timeout_ms"`
		Stdin     string      `json:"stdin"`
		Args      []string    `json:"args"`
	}
	inputFile struct {
		Path          string  `json:"path" required:"the file's path"`
		Content       *string `json:"content"`
		ContentBase64 *string `json:"content_base64"`
		FileID        *string `json:"file_id"`
	}
	bashArguments struct {
		Session   *string `json:"session"`
		Command   *string `json:"command"`
		TimeoutMS *int64  `json:"timeout_ms"`
	}
	readArguments struct {
		Session  *string `json:"session"`
		Path     *string `json:"path"`
		Encoding string  `json:"encoding"`
	}
	writeArguments struct {
		Session       *string `json:"session"`
		Path          *string `json:"path"`
		Content       *string `json:"content"`
		ContentBase64 *string `json:"content_base64"`
	}
	listArguments struct {
		Session *string `json:"session"`
		Path    string  `json:"path"`
	}
	endArguments struct {
		Session *string `json:"session"`
	}
)

// timeout converts timeout_ms.
func (s *Server) timeout(given *int64) (time.Duration, error) {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	switch {
	case given == nil:
		return s.defaultTimeout(), nil
	case *given < 1:
		return 0, invalid(fmt.Sprintf("timeout_ms is %d: must be at least 1", *given))
	}
	return time.Duration(min(*given, most)) * time.Millisecond, nil
}

// chosen returns which of several arguments of a file has its content: the only one that is not "". If
// all are, it is the first of those that are given, and the file is empty. The last of three is a
// file_id, which cannot be empty.
func chosen(where string, given ...*string) (int, error) {
	names := []string{"content", "content_base64", "file_id"}[:len(given)]
	choice, filled := -1, []string{}
	for i, text := range given {
		if text != nil && *text != "" {
			choice, filled = i, append(filled, names[i])
		}
	}
	switch all := enumerate(names); {
	case len(filled) > 1:
		return 0, invalid(fmt.Sprintf("%s needs one of %s: it has %s", where, all, enumerate(filled)))
	case len(filled) == 1:
		return choice, nil
	case given[0] != nil:
		return 0, nil
	case given[1] != nil:
		return 1, nil
	default:
		return 0, invalid(fmt.Sprintf("%s needs one of %s", where, all))
	}
}

// enumerate lists names, at least two, in a sentence.
func enumerate(names []string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// plain returns the bytes of a file from its content or its content_base64.
func plain(choice int, text string) ([]byte, error) {
	if choice == 0 {
		return []byte(text), nil
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("content_base64 must be standard base64: %w", err)
	}
	return data, nil
}

// writeFileTool is the name of the tool that writes a file.
const writeFileTool = "write_file"

// describeFault describes a fault with the name of the tool's argument.
func describeFault(tool string, f execution.FieldError) string {
	switch f.Field {
	case execution.FieldTimeout:
		if f.Fault == execution.FaultTooLarge {
			return fmt.Sprintf("timeout_ms exceeds maximum of %d ms", f.Limit.Milliseconds())
		}
		return f.Describe("timeout_ms")
	case execution.FieldCommand:
		return f.Describe("command")
	case execution.FieldFiles:
		if tool != writeFileTool {
			return f.Describe(fmt.Sprintf("files[%d].path", f.Index))
		}
	case execution.FieldEnv, execution.FieldArgs:
		return f.Describe(f.Part())
	case execution.FieldPath, execution.FieldTarget, execution.FieldArchive:
	}
	return f.Describe("path")
}

func invalid(message string) error {
	return &execution.Error{Code: execution.Invalid, Message: message}
}
