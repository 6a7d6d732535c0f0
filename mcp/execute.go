package mcp

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// executeTool describes execute_python to a model, from the live settings.
func executeTool(opts Options) mcpsdk.Tool {
	return mcpsdk.NewTool("execute_python",
		mcpsdk.WithDescription(describe(opts)),
		mcpsdk.WithTitleAnnotation("Run Python"),
		mcpsdk.WithReadOnlyHintAnnotation(false),
		mcpsdk.WithDestructiveHintAnnotation(false), // what it changes is gone after the call
		mcpsdk.WithIdempotentHintAnnotation(false),
		mcpsdk.WithOpenWorldHintAnnotation(opts.Settings.Network != "none"),
		mcpsdk.WithString("code", mcpsdk.Required(), mcpsdk.Description("Python source text. Print what you want to see.")),
		mcpsdk.WithInteger("timeout_ms", mcpsdk.Min(1), mcpsdk.Max(float64(opts.Limits.MaxTimeout.Milliseconds())),
			mcpsdk.DefaultNumber(float64(min(execution.DefaultTimeout, opts.Limits.MaxTimeout).Milliseconds())),
			mcpsdk.Description("Wall-clock time the program may take, in milliseconds.")),
		mcpsdk.WithString("stdin", mcpsdk.Description("What the program reads on its standard input.")),
		mcpsdk.WithArray("files", mcpsdk.Description("Files to put into the working directory first."), mcpsdk.Items(map[string]any{
			"type": "object",
			"properties": map[string]any{
				"path":           map[string]any{"type": "string", "description": "relative path"},
				"content":        map[string]any{"type": "string", "description": "the file's text"},
				"content_base64": map[string]any{"type": "string", "description": "the file's bytes in base64, instead of content"},
			},
			"required": []string{"path"}, "additionalProperties": false,
		})),
		mcpsdk.WithSchemaAdditionalProperties(false),
	)
}

// describe makes the tool's description.
func describe(opts Options) string {
	network := "There is no network."
	if opts.Settings.Network != "none" {
		network = "There is a network."
	}
	return fmt.Sprintf("Runs a Python 3 program in a fresh, isolated sandbox and returns what it prints and the names of the files it writes. "+
		"Print results: the value of the last line is shown too, as in a REPL. "+
		"Nothing persists between calls: variables, files and imports are gone afterwards. "+
		"%s Limits: %d ms at most (%d by default), %d s of CPU time, %d MB of memory, %d MB of files. "+
		"The default image has numpy, pandas, scipy, matplotlib, seaborn, scikit-learn, statsmodels, sympy, networkx, openpyxl, pillow and more.",
		network, opts.Limits.MaxTimeout.Milliseconds(), execution.DefaultTimeout.Milliseconds(),
		opts.Limits.CPUTime/time.Second, opts.Settings.MemoryBytes>>20, opts.Settings.WorkspaceBytes>>20)
}

// execute answers a call. Every failure is a result with isError: a model reads
// results, while protocol errors reach its client alone.
func (s *Server) execute(ctx context.Context, call mcpsdk.CallToolRequest) (out *mcpsdk.CallToolResult, _ error) {
	defer func() {
		if cause := recover(); cause != nil {
			out = s.failure(ctx, fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
		}
	}()
	req, err := parseArguments(call.Params.Arguments)
	if err != nil {
		return mcpsdk.NewToolResultError(execution.AsError(err).Explain()), nil
	}
	req.Keep = forget
	result, err := s.opts.Executor.Execute(ctx, req)
	if err != nil {
		return s.failure(ctx, err), nil
	}
	out = mcpsdk.NewToolResultText(render(result))
	out.IsError = result.Failed()
	return out, nil
}

// forget keeps nothing: a model is told of a file's name and size alone.
func forget(_ context.Context, _ string, content io.Reader) (string, error) {
	_, err := io.Copy(io.Discard, content)
	return "", err
}

func (s *Server) failure(ctx context.Context, err error) *mcpsdk.CallToolResult {
	domain := execution.AsError(err)
	if domain.Err != nil && domain.Code != execution.Cancelled {
		s.opts.Log.ErrorContext(ctx, "call failed", "code", domain.Code, "error", domain.Err)
	}
	text := domain.Explain()
	switch domain.Code {
	case execution.Busy:
		text += ". Try again in a moment."
	case execution.Unavailable:
		text += ". The program was not run. Ask the user to look at the server's log."
	case execution.Internal:
		text = "The server failed, not the program. Its log says why."
	case execution.Invalid, execution.NotFound, execution.TooLarge, execution.StoreFull, execution.Cancelled:
	}
	return mcpsdk.NewToolResultError(text)
}

type arguments struct {
	Code      string `json:"code"`
	TimeoutMS int64  `json:"timeout_ms"`
	Stdin     string `json:"stdin"`
	Files     []struct {
		Path          string  `json:"path"`
		Content       *string `json:"content"`
		ContentBase64 *string `json:"content_base64"`
	} `json:"files"`
}

// parseArguments reads a call's arguments. An unknown one is refused with the
// known ones named: a model that misspells one would not notice else.
func parseArguments(raw any) (execution.Request, error) {
	req := execution.Request{Interactive: true}
	given, ok := raw.(map[string]any)
	if !ok && raw != nil {
		return req, invalid("arguments must be an object")
	}
	if err := checkNames("argument", given, "code", "timeout_ms", "stdin", "files"); err != nil {
		return req, err
	}
	if _, ok := given["code"].(string); !ok {
		return req, invalid("the argument code is required: Python source text, as a string")
	}
	files, _ := given["files"].([]any)
	for i, file := range files {
		fields, _ := file.(map[string]any)
		if err := checkNames(fmt.Sprintf("field of files[%d]", i), fields, "path", "content", "content_base64"); err != nil {
			return req, err
		}
	}
	var args arguments
	if err := decode(given, &args); err != nil {
		return req, err
	}
	if _, given := given["timeout_ms"]; given && args.TimeoutMS < 1 {
		return req, invalid(fmt.Sprintf("timeout_ms is %d: must be at least 1", args.TimeoutMS))
	}
	req.Code, req.Stdin = args.Code, args.Stdin
	const most = int64(1<<63-1) / int64(time.Millisecond)
	req.Timeout = time.Duration(min(args.TimeoutMS, most)) * time.Millisecond
	for i, file := range args.Files {
		content, err := fileContent(file.Content, file.ContentBase64)
		if err != nil {
			return req, invalid(fmt.Sprintf("files[%d] %s", i, err))
		}
		req.Files = append(req.Files, execution.Inline(file.Path, content))
	}
	return req, nil
}

func fileContent(text, encoded *string) ([]byte, error) {
	switch {
	case text != nil && encoded != nil, text == nil && encoded == nil:
		return nil, fmt.Errorf("needs either content or content_base64")
	case text != nil:
		return []byte(*text), nil
	}
	content, err := base64.StdEncoding.DecodeString(*encoded)
	if err != nil {
		return nil, fmt.Errorf("content_base64 must be standard base64: %w", err)
	}
	return content, nil
}

// decode reads arguments into their types and says which one has a wrong type.
func decode(given map[string]any, into *arguments) error {
	data, err := json.Marshal(given)
	if err != nil {
		return err
	}
	err = json.Unmarshal(data, into)
	if wrong, ok := err.(*json.UnmarshalTypeError); ok { //nolint:errorlint // json returns it unwrapped
		return invalid(fmt.Sprintf("%s is a %s: must be of type %s", wrong.Field, wrong.Value, typeName(wrong)))
	}
	return err
}

func typeName(wrong *json.UnmarshalTypeError) string {
	switch wrong.Type.Kind().String() {
	case "int64":
		return "integer"
	case "slice":
		return "array"
	case "struct":
		return "object"
	}
	return wrong.Type.Kind().String()
}

func checkNames(what string, given map[string]any, known ...string) error {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(known, name) {
			return invalid(fmt.Sprintf("unknown %s %q: the known ones are %s", what, name, strings.Join(known, ", ")))
		}
	}
	return nil
}

func invalid(message string) error {
	return &execution.Error{Code: execution.Invalid, Message: message}
}
