package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Sessions are sandboxes that their clients keep for a while.
type Sessions interface {
	Create(ctx context.Context, ttl time.Duration, files []execution.Input) (execution.SessionInfo, error)
	List(ctx context.Context) ([]execution.SessionInfo, error)
	Delete(ctx context.Context, id string) error
	RunPython(ctx context.Context, id string, req execution.Request) (*execution.Result, error)
	RunBash(ctx context.Context, id string, cmd execution.Command) (*execution.Result, error)
	ReadFile(ctx context.Context, id string, req execution.ReadRequest) error
	WriteFiles(ctx context.Context, id string, req execution.WriteRequest) error
}

const (
	sessionsPath = "/v1/sessions"
	sessionPath  = sessionsPath + "/{session_id}"
)

type createSession struct {
	Files      []inputFile `json:"files,omitempty" nullable:"false" doc:"files to stage in the workspace"`
	TTLSeconds *int64      `json:"ttl_seconds,omitempty" nullable:"false" minimum:"1" maximum:"86400" default:"900" doc:"how long the session lives"`
}

type session struct {
	SessionID string `json:"session_id" example:"1f0c9a52d3b84e67a9d27f5c0e6b8a43"`
	ExpiresAt int64  `json:"expires_at" doc:"Unix seconds; by then the sandbox is gone, with all that is in it" example:"1764000901"`
}

type sessionList struct {
	Sessions []session `json:"sessions" nullable:"false"`
}

type bashRequest struct {
	Cmd       string `json:"cmd" doc:"what bash -c is given; it starts in the workspace, with nothing on its standard input"`
	TimeoutMS *int64 `json:"timeout_ms,omitempty" nullable:"false" minimum:"1" doc:"wall-clock time that the command may take; then it is killed, with what it has put in the background unless setsid has"`
}

type bashResponse struct {
	Stdout     string `json:"stdout"`
	Stderr     string `json:"stderr"`
	ExitCode   *int   `json:"exit_code" doc:"null when the command timed out; 128+N when signal N ended it"`
	TimedOut   bool   `json:"timed_out"`
	DurationMS int64  `json:"duration_ms"`
	End        end    `json:"end" doc:"why the command ended"`
	Usage      usage  `json:"usage"`
	QueueMS    int64  `json:"queue_ms" doc:"time before the command started: the calls of a session come one after the other"`
	StateLost  bool   `json:"state_lost,omitempty" doc:"the session's interpreter has ended: its variables, imports and threads are lost"`
}

func toSession(info execution.SessionInfo) session {
	return session{SessionID: info.ID, ExpiresAt: info.Expires.Add(time.Second - time.Nanosecond).Unix()} // rounded up
}

// inSession is the executor of a session.
type inSession struct {
	sessions Sessions
	id       string
}

// Execute runs a program in the session's interpreter.
func (s inSession) Execute(ctx context.Context, req execution.Request) (*execution.Result, error) {
	return s.sessions.RunPython(ctx, s.id, req)
}

// in gives the options with a session's executor.
func (o Options) in(id string) Options {
	o.Executor = inSession{o.Sessions, id}
	return o
}

// registerSessions adds the routes of sessions.
func registerSessions(mux *http.ServeMux, api huma.API, opts Options) {
	registerSessionLives(api, opts)
	registerSessionCalls(api, opts)
	registerSessionFiles(mux, api, opts)
}

func registerSessionLives(api huma.API, opts Options) {
	huma.Register(api, createSessionOperation(), func(ctx context.Context, in *createSessionInput) (*createSessionOutput, error) {
		return createOne(ctx, opts, in)
	})
	create := api.OpenAPI().Paths[sessionsPath].Post
	asJSONAlone(create)
	create.RequestBody.Required = false // the library takes RawBody for required
	huma.Register(api, listSessionsOperation(), func(ctx context.Context, _ *struct{}) (*listSessionsOutput, error) {
		found, err := opts.Sessions.List(ctx)
		if err != nil {
			return nil, toHTTP(ctx, opts, err)
		}
		list := sessionList{Sessions: make([]session, len(found))}
		for i, info := range found {
			list.Sessions[i] = toSession(info)
		}
		return &listSessionsOutput{list}, nil
	})
	huma.Register(api, deleteSessionOperation(), func(ctx context.Context, in *sessionInput) (*struct{}, error) {
		if err := opts.Sessions.Delete(ctx, in.SessionID); err != nil {
			return nil, toHTTP(ctx, opts, err)
		}
		return nil, nil //nolint:nilnil // the library's way to answer 204
	})
	// No id is invalid: one of another shape is unknown.
	delete(api.OpenAPI().Paths[sessionPath].Delete.Responses, strconv.Itoa(http.StatusUnprocessableEntity))
}

type createSessionInput struct {
	Body    *createSession
	RawBody []byte
}

type createSessionOutput struct{ Body session }

type listSessionsOutput struct{ Body sessionList }

type sessionInput struct {
	SessionID string `path:"session_id" doc:"what creating the session has told" example:"1f0c9a52d3b84e67a9d27f5c0e6b8a43"`
}

func createOne(ctx context.Context, opts Options, in *createSessionInput) (*createSessionOutput, error) {
	body := in.Body
	if body == nil {
		body = new(createSession)
	}
	if err := refuseNulls(in.RawBody); err != nil {
		return nil, err
	}
	j, err := newJob(ctx, opts, &executeRequest{Files: body.Files})
	if err != nil {
		return nil, toHTTP(ctx, opts, err)
	}
	defer j.exchange.End(ctx)
	var ttl time.Duration
	if body.TTLSeconds != nil {
		ttl = time.Duration(*body.TTLSeconds) * time.Second
	}
	info, err := opts.Sessions.Create(ctx, ttl, j.Files)
	if err != nil {
		return nil, toHTTP(ctx, opts, err)
	}
	return &createSessionOutput{toSession(info)}, nil
}

type bashInput struct {
	SessionID string `path:"session_id" doc:"what creating the session has told" example:"1f0c9a52d3b84e67a9d27f5c0e6b8a43"`
	Body      bashRequest
	RawBody   []byte
}

type bashOutput struct{ Body bashResponse }

type sessionExecuteInput struct {
	SessionID string `path:"session_id" doc:"what creating the session has told" example:"1f0c9a52d3b84e67a9d27f5c0e6b8a43"`
	Body      executeRequest
	RawBody   []byte
}

func (in *sessionExecuteInput) plain() *executeInput {
	return &executeInput{Body: in.Body, RawBody: in.RawBody}
}

func registerSessionCalls(api huma.API, opts Options) {
	huma.Register(api, bashOperation(), func(ctx context.Context, in *bashInput) (*bashOutput, error) {
		return bash(ctx, opts, in)
	})
	huma.Register(api, sessionExecuteOperation(), func(ctx context.Context, in *sessionExecuteInput) (*executeOutput, error) {
		return execute(ctx, opts.in(in.SessionID), in.plain())
	})
	huma.Register(api, sessionStreamOperation(api), func(ctx context.Context, in *sessionExecuteInput) (*huma.StreamResponse, error) {
		return executeStream(ctx, opts.in(in.SessionID), in.plain())
	})
	for _, path := range []string{"/bash", "/execute", "/execute/stream"} {
		asJSONAlone(api.OpenAPI().Paths[sessionPath+path].Post)
	}
}

// asJSONAlone corrects an operation's description: the library takes RawBody
// for a body of bytes that a client may send.
func asJSONAlone(operation *huma.Operation) {
	delete(operation.RequestBody.Content, "application/octet-stream")
}

func bash(ctx context.Context, opts Options, in *bashInput) (*bashOutput, error) {
	if err := refuseNulls(in.RawBody); err != nil {
		return nil, err
	}
	cmd := execution.Command{Command: in.Body.Cmd}
	if in.Body.TimeoutMS != nil {
		cmd.Timeout = milliseconds(*in.Body.TimeoutMS)
	}
	r, err := opts.Sessions.RunBash(ctx, in.SessionID, cmd)
	if err != nil {
		return nil, toHTTP(ctx, opts, err)
	}
	return &bashOutput{bashResponse{
		Stdout: r.Stdout, Stderr: r.Stderr, ExitCode: r.ExitCode, TimedOut: r.TimedOut(),
		DurationMS: r.Duration.Milliseconds(), QueueMS: r.Queue.Milliseconds(), StateLost: r.StateLost,
		End:   end{Reason: r.End.Reason, Signal: r.End.Signal, Message: r.End.Message},
		Usage: usage{CPUMS: r.Usage.CPU.Milliseconds(), PeakMemoryBytes: r.Usage.PeakMemoryBytes},
	}}, nil
}

// registerSessionFiles adds the routes of a session's files. They are no
// operations of the library's, which would hold a whole file in memory.
func registerSessionFiles(mux *http.ServeMux, api huma.API, opts Options) {
	for _, route := range []struct {
		operation huma.Operation
		handle    func(w http.ResponseWriter, r *http.Request) error
	}{
		{readFileOperation(), func(w http.ResponseWriter, r *http.Request) error { return readFile(opts, w, r) }},
		{writeFileOperation(), func(w http.ResponseWriter, r *http.Request) error { return writeFile(opts, w, r) }},
	} {
		describeErrors(api, &route.operation)
		api.OpenAPI().AddOperation(&route.operation)
		pattern := route.operation.Method + " " + wildcard(route.operation.Path)
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := route.handle(w, r); err != nil {
				writeError(w, r, opts, err)
			}
		})
	}
}

// wildcard makes the mux's pattern of a path of the description: a file's path
// has slashes in it, for which OpenAPI has no word.
func wildcard(path string) string { return strings.Replace(path, "{path}", "{path...}", 1) }

// belowSession gives what follows a session's id in an escaped path, or "".
func belowSession(path string) string {
	rest, ok := strings.CutPrefix(path, sessionsPath+"/")
	_, below, _ := strings.Cut(rest, "/")
	if !ok {
		return ""
	}
	return below
}

// writesSessionFile says whether a request has a session's file for its body. As
// to the mux, an escaped slash divides nothing.
func writesSessionFile(r *http.Request) bool {
	return r.Method == http.MethodPut && strings.HasPrefix(belowSession(r.URL.EscapedPath()), "files/")
}

func readFile(opts Options, w http.ResponseWriter, r *http.Request) error {
	path := r.PathValue("path")
	answer := fileAnswer{w: w, path: path}
	err := opts.Sessions.ReadFile(r.Context(), r.PathValue("session_id"), execution.ReadRequest{Path: path, Keep: answer.keep})
	if err != nil && answer.begun {
		panic(http.ErrAbortHandler) // the client must not mistake a part of the file for the whole
	}
	return asURLFault(err)
}

// fileAnswer answers with a file as it comes in.
type fileAnswer struct {
	w     http.ResponseWriter
	path  string
	begun bool
}

// keep implements [execution.Keep].
func (a *fileAnswer) keep(ctx context.Context, _ string, content io.Reader) (string, error) {
	a.begun = true
	a.w.Header().Set("Content-Type", "application/octet-stream")
	a.w.Header().Set("Content-Disposition", attachment(a.path[strings.LastIndexByte(a.path, '/')+1:]))
	a.w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(a.w)
	_ = control.SetWriteDeadline(time.Now().Add(transferTime)) // not for test recorders
	// A client that does not read, or has not sent what it said it would, holds up no shutdown.
	defer context.AfterFunc(ctx, func() {
		_ = control.SetWriteDeadline(time.Now())
		_ = control.SetReadDeadline(time.Now())
	})()
	_, err := io.Copy(struct{ io.Writer }{a.w}, content)
	return a.path, err
}

func writeFile(opts Options, w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength < 0 {
		return &apiError{status: http.StatusLengthRequired, Detail: "the request must have a Content-Length"}
	}
	source := &body{w: w, r: r.Body}
	err := opts.Sessions.WriteFiles(r.Context(), r.PathValue("session_id"), execution.WriteRequest{
		Files: []execution.Input{{Path: r.PathValue("path"), Size: r.ContentLength, Source: source}}, Spent: source.spent,
	})
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &apiError{status: http.StatusUnprocessableEntity, Detail: "the body ends early"}
	}
	if err != nil {
		return asURLFault(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// body gives a request's body, which nobody can read a second time.
type body struct {
	w      http.ResponseWriter
	r      io.Reader
	opened bool
}

// Open implements [execution.Source]. A client that sends nothing holds the
// reader up no longer than ctx lasts.
func (b *body) Open(ctx context.Context) (io.ReadCloser, error) {
	if b.opened {
		return nil, &execution.Error{Code: execution.Unavailable, Message: "the session does not answer; try again"}
	}
	b.opened = true
	control := http.NewResponseController(b.w)
	stop := context.AfterFunc(ctx, func() { _ = control.SetReadDeadline(time.Now()) }) // not for test recorders
	return &openBody{b.r, stop}, nil
}

// spent is for [execution.WriteRequest].
func (b *body) spent() bool { return b.opened }

type openBody struct {
	io.Reader
	stop func() bool
}

// Close leaves the body to the server, which closes it.
func (b *openBody) Close() error {
	b.stop()
	return nil
}

// asURLFault places the faults of a request in its URL.
func asURLFault(err error) error {
	domain, ok := errors.AsType[*execution.Error](err)
	if !ok || domain.Code != execution.Invalid || len(domain.Fields) == 0 {
		return err
	}
	return &apiError{status: http.StatusUnprocessableEntity, Detail: invalidDetail(domain.Fields, inURL)}
}
