package mcp

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
	"github.com/vivarium-sandbox/vivarium/mcp/render"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

// needsSession is the session argument of a tool that cannot start one.
func needsSession() required { return required{"session", "one that an earlier call has named"} }

// newSession is the session argument of a call that starts one.
const newSession = "new"

// cannotBegin returns an error if a call asks a tool to start a session that cannot.
func cannotBegin(tool string, session *string) error {
	if *session == newSession {
		return invalid(tool + ` cannot begin a session: call execute_python or run_bash with session="new" first`)
	}
	return nil
}

// workspace is the working directory of programs. Paths in arguments are relative to it.
const workspace = "/workspace/"

// relative makes a path relative: a model may repeat an absolute one that a program printed.
func relative(path string) string { return strings.TrimPrefix(path, workspace) }

// guarded adapts a handler for the library. Every failure becomes a result with isError: a model
// reads results, while protocol errors reach only its client.
func (s *Server) guarded(handle handler) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, call mcpsdk.CallToolRequest) (out *mcpsdk.CallToolResult, _ error) {
		if ctx.Err() != nil {
			return s.failure(ctx, &execution.Error{Code: execution.Cancelled, Message: "the call was cancelled before it began"}), nil
		}
		defer func() {
			if cause := recover(); cause != nil {
				out = s.failure(ctx, fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
			}
		}()
		if err := s.renderer.Reserve(ctx); err != nil {
			return s.failure(ctx, err), nil
		}
		out, err := handle(ctx, call)
		if err != nil {
			return s.failure(ctx, err), nil
		}
		return out, nil
	}
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
		text += ". Nothing was run. Ask the user to run `vivarium doctor`, which says what is missing."
	case execution.Internal:
		text = "The server failed, not the program. Its log says why."
	case execution.NotFound:
		if strings.HasPrefix(text, "Session ") {
			text += `: it has ended, or there never was one of that name. session="new" begins one.`
		}
	case execution.Cancelled:
		if errors.Is(context.Cause(ctx), transport.ErrClosed) {
			text = transport.ErrClosed.Error()
		}
	case execution.Invalid, execution.Unauthenticated, execution.TooLarge, execution.StoreFull, execution.Overloaded:
	}
	return mcpsdk.NewToolResultError(render.Clean(text))
}

// run is a call that runs something, as the tools prepare it.
type run struct {
	operation execution.Operation
	session   *string
	request   execution.Request
	exchange  *filestore.Exchange
}

func (s *Server) newRun(operation execution.Operation) *run {
	exchange := filestore.NewExchange(s.opts.Files, s.opts.Log)
	return &run{operation: operation, exchange: exchange, request: execution.Request{Interactive: true, Keep: exchange.Keep}}
}

func (s *Server) executePython(ctx context.Context, call mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
	var args pythonArguments
	err := parse(call.Params.Arguments, &args, required{"code", "Python source text"})
	if err != nil {
		return nil, err
	}
	r := s.newRun(execution.RunPython)
	defer r.exchange.End(ctx)
	r.session, r.request.Code, r.request.Stdin = args.Session, *args.Code, args.Stdin
	if r.request.Timeout, err = timeout(args.TimeoutMS); err != nil {
		return nil, err
	}
	for i, file := range args.Files {
		input, err := r.input(ctx, i, file)
		if err != nil {
			return nil, err
		}
		r.request.Files = append(r.request.Files, input)
	}
	return s.answer(ctx, call, r)
}

func (r *run) input(ctx context.Context, index int, file inputFile) (execution.Input, error) {
	if err := file.check(); err != nil {
		return execution.Input{}, invalid(fmt.Sprintf("files[%d] %s", index, err))
	}
	path := relative(file.Path)
	if file.FileID != nil {
		return r.exchange.Input(ctx, path, *file.FileID)
	}
	data, err := content(file.Content, file.ContentBase64)
	if err != nil {
		return execution.Input{}, invalid(fmt.Sprintf("files[%d] %s", index, err))
	}
	return execution.Inline(path, data), nil
}

func (s *Server) runBash(ctx context.Context, call mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
	var args bashArguments
	err := parse(call.Params.Arguments, &args,
		required{"session", `one that an earlier call has named, or "new"`}, required{"command", "what bash runs"})
	if err != nil {
		return nil, err
	}
	r := s.newRun(execution.RunBash)
	defer r.exchange.End(ctx)
	r.session, r.request.Code = args.Session, *args.Command
	if r.request.Timeout, err = timeout(args.TimeoutMS); err != nil {
		return nil, err
	}
	return s.answer(ctx, call, r)
}

// answer performs a run and renders its outcome.
func (s *Server) answer(ctx context.Context, call mcpsdk.CallToolRequest, r *run) (*mcpsdk.CallToolResult, error) {
	if r.request.Timeout == 0 {
		r.request.Timeout = s.defaultTimeout()
	}
	following := s.follow(ctx, call)
	if following != nil {
		r.request.Output = following.output
	}
	result, begun, err := s.perform(ctx, r)
	following.stop()
	if err != nil {
		return nil, err
	}
	outcome := render.Outcome{Result: result, Save: r.exchange.Keep}
	if begun != nil {
		outcome.NewSession = begun.ID
	}
	out := s.renderer.Result(ctx, outcome)
	switch {
	case ctx.Err() == nil:
		r.exchange.Deliver()
	case begun != nil:
		s.forget(ctx, begun)
	}
	return out, nil
}

// perform runs a run where it is to run. It gives the session that was begun for
// it, if one was.
func (s *Server) perform(ctx context.Context, r *run) (*execution.Result, *execution.SessionInfo, error) {
	if r.session == nil {
		result, err := s.opts.Executor.Execute(ctx, r.request)
		return result, nil, err
	}
	if *r.session != newSession {
		result, err := s.opts.Sessions.Call(ctx, *r.session, r.operation, r.request)
		return result, nil, err
	}
	if _, err := s.opts.Limits.ValidateCall(r.operation, r.request); err != nil {
		return nil, nil, err
	}
	begun, err := s.opts.Sessions.Create(ctx, s.opts.SessionTTL, nil)
	if err != nil {
		return nil, nil, err
	}
	result, err := s.opts.Sessions.Call(ctx, begun.ID, r.operation, r.request)
	if err != nil {
		s.forget(ctx, &begun)
	}
	return result, &begun, err
}

// forgetTime bounds the deletion of a session whose client does not learn its name. The session
// also ends by itself when its time is over.
const forgetTime = 30 * time.Second

// forget deletes a session whose client does not learn its name.
func (s *Server) forget(ctx context.Context, begun *execution.SessionInfo) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgetTime)
	defer cancel()
	if err := s.opts.Sessions.Delete(ctx, begun.ID); err != nil {
		s.opts.Log.WarnContext(ctx, "deleting a session failed whose client did not receive its name", "error", err)
	}
}

func (s *Server) readFile(ctx context.Context, call mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
	var args readArguments
	err := parse(call.Params.Arguments, &args, needsSession(), required{"path", "the file's path"})
	if err != nil {
		return nil, err
	}
	if err := cannotBegin("read_file", args.Session); err != nil {
		return nil, err
	}
	*args.Path = relative(*args.Path)
	encoded := args.Encoding != nil && *args.Encoding == "base64"
	if args.Encoding != nil && !encoded && *args.Encoding != "text" {
		return nil, invalid(fmt.Sprintf("encoding is %q: must be text or base64", execution.Clip(*args.Encoding)))
	}
	var file render.SessionFile
	result, err := s.opts.Sessions.Call(ctx, *args.Session, execution.ReadFile, execution.Request{Code: *args.Path, Keep: file.Keep})
	switch {
	case err != nil:
		return nil, err
	case len(result.Files) != 1:
		return nil, &execution.Error{Code: execution.Unavailable, Message: "the file could not be read: " + unread(result)}
	}
	if encoded {
		return s.renderer.Base64(ctx, &file, *args.Path)
	}
	return s.renderer.File(ctx, &file, *args.Path)
}

func unread(result *execution.Result) string {
	for _, skipped := range result.Skipped {
		return skipped.Reason
	}
	return result.End.Message
}

func (s *Server) writeFile(ctx context.Context, call mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
	var args writeArguments
	err := parse(call.Params.Arguments, &args, needsSession(), required{"path", "the file's path"})
	if err != nil {
		return nil, err
	}
	if err := cannotBegin("write_file", args.Session); err != nil {
		return nil, err
	}
	*args.Path = relative(*args.Path)
	if count(args.Content, args.ContentBase64) != 1 {
		return nil, invalid("write_file needs one of content and content_base64")
	}
	data, err := content(args.Content, args.ContentBase64)
	if err != nil {
		return nil, invalid(err.Error())
	}
	_, err = s.opts.Sessions.Call(ctx, *args.Session, execution.WriteFiles, execution.Request{
		Files: []execution.Input{execution.Inline(*args.Path, data)},
	})
	if err != nil {
		return nil, ofOnePath(err)
	}
	return mcpsdk.NewToolResultText(fmt.Sprintf("Wrote %s, %s bytes.", *args.Path, render.Grouped(int64(len(data))))), nil
}

// ofOnePath tells of a fault of the one path of a call as such, not as of a
// list's.
func ofOnePath(err error) error {
	domain := execution.AsError(err)
	if domain.Code != execution.Invalid || len(domain.Fields) != 1 {
		return err
	}
	field := domain.Fields[0]
	field.Path = []any{"path"}
	return &execution.Error{Code: execution.Invalid, Message: domain.Message, Fields: []execution.FieldError{field}}
}

func (s *Server) endSession(ctx context.Context, call mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
	var args endArguments
	if err := parse(call.Params.Arguments, &args, needsSession()); err != nil {
		return nil, err
	}
	if err := cannotBegin("end_session", args.Session); err != nil {
		return nil, err
	}
	err := s.opts.Sessions.Delete(ctx, *args.Session)
	switch {
	case err != nil && execution.AsError(err).Code == execution.NotFound:
		return nil, &execution.Error{Code: execution.NotFound, Message: fmt.Sprintf(
			"the session %s has ended already, or there never was one of that name", execution.Clip(*args.Session))}
	case err != nil:
		return nil, err
	}
	return mcpsdk.NewToolResultText("The session has ended."), nil
}
