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
func (s *Server) guarded(t tool) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, call mcpsdk.CallToolRequest) (out *mcpsdk.CallToolResult, _ error) {
		fail := func(err error) *mcpsdk.CallToolResult { return s.failure(ctx, call.Params.Name, err) }
		if ctx.Err() != nil {
			return fail(&execution.Error{Code: execution.Cancelled, Message: "the call was cancelled before it began"}), nil
		}
		defer func() {
			if cause := recover(); cause != nil {
				out = fail(fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
			}
		}()
		if err := s.renderer.Reserve(ctx); err != nil {
			return fail(err), nil
		}
		arguments, err := asDeclared(ctx, t.InputSchema, call.Params.Arguments)
		if err != nil {
			return fail(err), nil
		}
		call.Params.Arguments = arguments
		out, err = t.handle(ctx, call)
		if err != nil {
			return fail(err), nil
		}
		return out, nil
	}
}

func (s *Server) failure(ctx context.Context, tool string, err error) *mcpsdk.CallToolResult {
	domain := execution.AsError(err)
	if domain.Err != nil && domain.Code != execution.Cancelled {
		s.opts.Log.ErrorContext(ctx, "call failed", "code", domain.Code, "error", domain.Err)
	}
	text := domain.ExplainFields(func(f execution.FieldError) string { return describeFault(tool, f) })
	switch domain.Code {
	case execution.Busy:
		text += ". Try again in a moment."
	case execution.Unavailable:
		text += ". Nothing was run. Ask the user to run `vivarium doctor`, which reports what is missing."
	case execution.Internal:
		text = "The server failed, not the program. Its log has the reason."
	case execution.NotFound:
		if domain.Cause == execution.SessionMissing {
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
	session  *string
	exchange *filestore.Exchange
	// validate checks the request before a session is begun for it.
	validate func(ctx context.Context) error
	// execute runs the request in a session, or in none where the id is empty.
	execute func(ctx context.Context, id string, output execution.Output) (*execution.Result, error)
}

func (s *Server) executePython(ctx context.Context, call mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
	var args pythonArguments
	env, err := s.parseWithEnv(call.Params.Arguments, &args, required{"code", "Python source text"})
	if err != nil {
		return nil, err
	}
	exchange := filestore.NewExchange(s.opts.Files, s.opts.Log)
	defer exchange.End(ctx)
	req := execution.Request{Code: *args.Code, Stdin: args.Stdin, Args: args.Args, Env: env, Interactive: true, Keep: exchange.Keep}
	if req.Timeout, err = s.timeout(args.TimeoutMS); err != nil {
		return nil, err
	}
	for i, file := range args.Files {
		input, err := stage(ctx, exchange, i, file)
		if err != nil {
			return nil, err
		}
		req.Files = append(req.Files, input)
	}
	return s.answer(ctx, call, &run{
		session: args.Session, exchange: exchange,
		validate: func(ctx context.Context) error {
			_, err := req.Validate(ctx, s.opts.Limits)
			return err
		},
		execute: func(ctx context.Context, id string, output execution.Output) (*execution.Result, error) {
			req.Output = output
			if id == "" {
				return s.opts.Executor.Execute(ctx, req)
			}
			return s.opts.Sessions.RunPython(ctx, id, req)
		},
	})
}

// stage makes an input of a file of a call's.
func stage(ctx context.Context, exchange *filestore.Exchange, index int, file inputFile) (execution.Input, error) {
	where := fmt.Sprintf("files[%d]", index)
	given := []*string{file.Content, file.ContentBase64, file.FileID}
	choice, err := chosen(where, given...)
	if err != nil {
		return execution.Input{}, err
	}
	path := relative(file.Path)
	if choice == 2 {
		return exchange.Input(path, *file.FileID).Found(ctx)
	}
	data, err := plain(choice, *given[choice])
	if err != nil {
		return execution.Input{}, invalid(where + "." + err.Error())
	}
	return execution.Inline(path, data), nil
}

func (s *Server) runBash(ctx context.Context, call mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
	var args bashArguments
	env, err := s.parseWithEnv(call.Params.Arguments, &args,
		required{"session", `one that an earlier call has named, or "new"`}, required{"command", "what bash runs"})
	if err != nil {
		return nil, err
	}
	exchange := filestore.NewExchange(s.opts.Files, s.opts.Log)
	defer exchange.End(ctx)
	cmd := execution.Command{Command: *args.Command, Env: env, Keep: exchange.Keep}
	if cmd.Timeout, err = s.timeout(args.TimeoutMS); err != nil {
		return nil, err
	}
	return s.answer(ctx, call, &run{
		session: args.Session, exchange: exchange,
		validate: func(context.Context) error {
			_, err := cmd.Validate(s.opts.Limits)
			return err
		},
		execute: func(ctx context.Context, id string, output execution.Output) (*execution.Result, error) {
			cmd.Output = output
			return s.opts.Sessions.RunBash(ctx, id, cmd)
		},
	})
}

// answer performs a run and renders its outcome.
func (s *Server) answer(ctx context.Context, call mcpsdk.CallToolRequest, r *run) (*mcpsdk.CallToolResult, error) {
	var output execution.Output
	following := s.follow(ctx, call)
	if following != nil {
		output = following.output
	}
	result, begun, err := s.perform(ctx, r, output)
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

// perform runs a run where it is to run. It returns the session that was begun for
// it, if one was.
func (s *Server) perform(ctx context.Context, r *run, output execution.Output) (*execution.Result, *execution.SessionInfo, error) {
	if r.session == nil {
		result, err := r.execute(ctx, "", output)
		return result, nil, err
	}
	if *r.session != newSession {
		result, err := r.execute(ctx, *r.session, output)
		return result, nil, err
	}
	if err := r.validate(ctx); err != nil { // a session is not begun for a call that would be refused
		return nil, nil, err
	}
	begun, err := s.opts.Sessions.Create(ctx, s.opts.SessionTTL, nil)
	if err != nil {
		return nil, nil, err
	}
	result, err := r.execute(ctx, begun.ID, output)
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
	encoded := args.Encoding == "base64"
	if !encoded && args.Encoding != "" && args.Encoding != "text" {
		return nil, invalid(fmt.Sprintf("encoding is %q: must be text or base64", execution.Clip(args.Encoding)))
	}
	var file render.SessionFile
	if err := s.opts.Sessions.ReadFile(ctx, *args.Session, execution.ReadRequest{Path: *args.Path, Keep: file.Keep}); err != nil {
		return nil, err
	}
	if encoded {
		return s.renderer.Base64(ctx, &file, *args.Path)
	}
	return s.renderer.File(ctx, &file, *args.Path)
}

func (s *Server) writeFile(ctx context.Context, call mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
	var args writeArguments
	err := parse(call.Params.Arguments, &args, needsSession(), required{"path", "the file's path"})
	if err != nil {
		return nil, err
	}
	if err := cannotBegin(writeFileTool, args.Session); err != nil {
		return nil, err
	}
	*args.Path = relative(*args.Path)
	given := []*string{args.Content, args.ContentBase64}
	choice, err := chosen(writeFileTool, given...)
	if err != nil {
		return nil, err
	}
	data, err := plain(choice, *given[choice])
	if err != nil {
		return nil, invalid(err.Error())
	}
	err = s.opts.Sessions.WriteFiles(ctx, *args.Session, execution.WriteRequest{
		Files: []execution.Input{execution.Inline(*args.Path, data)},
	})
	if err != nil {
		return nil, err
	}
	return mcpsdk.NewToolResultText(fmt.Sprintf("Wrote %s, %s bytes.", *args.Path, render.Grouped(int64(len(data))))), nil
}

func (s *Server) listFiles(ctx context.Context, call mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
	var args listArguments
	if err := parse(call.Params.Arguments, &args, needsSession()); err != nil {
		return nil, err
	}
	if err := cannotBegin("list_files", args.Session); err != nil {
		return nil, err
	}
	listing, err := s.opts.Sessions.ListFiles(ctx, *args.Session, execution.ListRequest{Path: folder(args.Path)})
	if err != nil {
		return nil, err
	}
	return s.renderer.Listing(listing), nil
}

// folder makes the path of a folder relative, and that of the working directory empty.
func folder(path string) string {
	path = strings.TrimSuffix(relative(path+"/"), "/")
	if path == "." {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(path, "./"), "/")
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
