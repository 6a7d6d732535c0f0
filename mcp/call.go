package mcp

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
	"github.com/vivarium-sandbox/vivarium/wire"
)

// needsSession is the session of a tool that begins none.
func needsSession() required { return required{"session", "one that an earlier call has named"} }

// newSession is what a call's session is called that begins one.
const newSession = "new"

// cannotBegin is an error for who asks a tool to begin a session that begins none.
func cannotBegin(tool string, session *string) error {
	if *session == newSession {
		return invalid(tool + ` cannot begin a session: call execute_python or run_bash with session="new" first`)
	}
	return nil
}

// workspace is the working directory of programs, below which a tool's paths are.
const workspace = "/workspace/"

// relative takes a path that a program has told for what it is.
func relative(path string) string { return strings.TrimPrefix(path, workspace) }

// guarded is a tool's handler as the library calls it. Every failure is a result
// with isError: a model reads results, while protocol errors reach its client
// alone.
func (s *Server) guarded(handle handler) mcpserver.ToolHandlerFunc {
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
		// The text of the answer is paid for before anything runs: afterwards nobody
		// could undo what a program has done.
		if err := execution.AccountOf(ctx).Take(textTimes * int64(s.opts.OutputBytes)); err != nil {
			return fail(err), nil
		}
		out, err := handle(ctx, call)
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
		text += ". Nothing was run. Ask the user to run `vivarium doctor`, which says what is missing."
	case execution.Internal:
		text = "The server failed, not the program. Its log says why."
	case execution.NotFound:
		if strings.HasPrefix(text, "Session ") {
			text += `: it has ended, or there never was one of that name. session="new" begins one.`
		}
	case execution.Cancelled:
		if errors.Is(context.Cause(ctx), errClosed) {
			text = errClosed.Error()
		}
	case execution.Invalid, execution.Unauthenticated, execution.TooLarge, execution.StoreFull, execution.Overloaded:
	}
	return mcpsdk.NewToolResultError(clean(text))
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
	err := parse(call.Params.Arguments, &args, required{"code", "Python source text"})
	if err != nil {
		return nil, err
	}
	exchange := filestore.NewExchange(s.opts.Files, s.opts.Log)
	defer exchange.End(ctx)
	req := execution.Request{Code: *args.Code, Stdin: args.Stdin, Interactive: true, Keep: exchange.Keep}
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
	if count(file.Content, file.ContentBase64, file.FileID) != 1 {
		return execution.Input{}, invalid(fmt.Sprintf("files[%d] needs one of content, content_base64 and file_id", index))
	}
	path := relative(file.Path)
	if file.FileID != nil {
		return exchange.Input(path, *file.FileID).Found(ctx)
	}
	data, err := content(file.Content, file.ContentBase64)
	if err != nil {
		return execution.Input{}, invalid(fmt.Sprintf("files[%d].%s", index, err))
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
	exchange := filestore.NewExchange(s.opts.Files, s.opts.Log)
	defer exchange.End(ctx)
	cmd := execution.Command{Command: *args.Command, Keep: exchange.Keep}
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

// answer runs a run and makes its result.
func (s *Server) answer(ctx context.Context, call mcpsdk.CallToolRequest, r *run) (*mcpsdk.CallToolResult, error) {
	var output execution.Output
	following := s.follow(ctx, call)
	if following != nil {
		output = following.output
	}
	result, begun, err := s.perform(ctx, r, output)
	following.stop(ctx)
	if err != nil {
		return nil, err
	}
	out := s.present(ctx, r, result, begun)
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

// forgetTime bounds the end of a session that nobody learns of. It ends by itself
// too, at its time.
const forgetTime = 30 * time.Second

// forget ends a session that nobody learns of.
func (s *Server) forget(ctx context.Context, begun *execution.SessionInfo) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgetTime)
	defer cancel()
	if err := s.opts.Sessions.Delete(ctx, begun.ID); err != nil {
		s.opts.Log.WarnContext(ctx, "a session that nobody knows of could not be ended", "error", err)
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
	var file keptFile
	if err := s.opts.Sessions.ReadFile(ctx, *args.Session, execution.ReadRequest{Path: *args.Path, Keep: file.keep}); err != nil {
		return nil, err
	}
	return s.show(ctx, &file, *args.Path, encoded)
}

// keptFile holds a file that is read, as far as it can be shown.
type keptFile struct {
	data bytes.Buffer
	size int64
}

// keep is an [execution.Keep].
func (f *keptFile) keep(ctx context.Context, _ string, content io.Reader) (string, error) {
	f.data.Reset()
	charged := wire.Charged(io.NopCloser(content), execution.AccountOf(ctx), loadTimes+cleanTimes)
	n, err := io.Copy(&f.data, io.LimitReader(charged, maxPictureBytes))
	if err != nil {
		return "", err
	}
	rest, err := io.Copy(io.Discard, content)
	f.size = n + rest
	return "read", err
}

func (f *keptFile) whole() bool { return f.size == int64(f.data.Len()) }

// show makes a result of a file of a session's.
func (s *Server) show(ctx context.Context, f *keptFile, path string, encoded bool) (*mcpsdk.CallToolResult, error) {
	data := f.data.Bytes()
	if encoded {
		size := base64.StdEncoding.EncodedLen(int(f.size))
		if size > pictureBudget {
			return nil, tooLong(path, f.size, "read parts of it with execute_python")
		}
		if err := execution.AccountOf(ctx).Take(answerTimes * int64(size)); err != nil {
			return nil, err
		}
		return mcpsdk.NewToolResultText(base64.StdEncoding.EncodeToString(data)), nil
	}
	if mayBePicture(path) && f.whole() {
		pictures := s.newGallery()
		if shown, smaller, err := pictures.add(ctx, path, data, pictures.bytes); err == nil {
			how := ""
			if smaller {
				how = ", shown smaller than it is"
			}
			return &mcpsdk.CallToolResult{Content: []mcpsdk.Content{
				mcpsdk.NewTextContent(fmt.Sprintf("[%s, %s bytes%s]", clean(path), grouped(f.size), how)), shown,
			}}, nil
		}
	}
	switch {
	case !f.whole() && mayBePicture(path):
		return nil, tooLong(path, f.size, "have execute_python make a smaller copy of it")
	case !f.whole():
		return nil, tooLong(path, f.size, "read parts of it with run_bash, such as sed -n '1,100p'")
	case !isText(data):
		return nil, invalid(fmt.Sprintf("%s is no text (%s bytes): read it with encoding base64, or with execute_python", path, grouped(f.size)))
	}
	text, missing := cut(clean(newlines().Replace(string(data))), s.opts.OutputBytes)
	switch {
	case missing > 0:
		text += "\n[Read parts with run_bash, such as sed -n '100,200p'.]\n"
	case len(data) == 0:
		text = "[The file is empty.]"
	case text == "":
		text = fmt.Sprintf("[Nothing of the file's %s bytes can be shown as text: read it with encoding base64.]", grouped(f.size))
	}
	return mcpsdk.NewToolResultText(text), nil
}

// newlines makes those of other systems ours: in a file, a carriage return is no
// progress bar's.
func newlines() *strings.Replacer { return strings.NewReplacer("\r\n", "\n", "\r", "\n") }

func tooLong(path string, size int64, instead string) error {
	return &execution.Error{Code: execution.TooLarge, Message: fmt.Sprintf(
		"%s has %s bytes, too many for one answer: %s", path, grouped(size), instead)}
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
	if count(args.Content, args.ContentBase64) != 1 {
		return nil, invalid("write_file needs one of content and content_base64")
	}
	data, err := content(args.Content, args.ContentBase64)
	if err != nil {
		return nil, invalid(err.Error())
	}
	err = s.opts.Sessions.WriteFiles(ctx, *args.Session, execution.WriteRequest{
		Files: []execution.Input{execution.Inline(*args.Path, data)},
	})
	if err != nil {
		return nil, err
	}
	return mcpsdk.NewToolResultText(fmt.Sprintf("Wrote %s, %s bytes.", *args.Path, grouped(int64(len(data))))), nil
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
