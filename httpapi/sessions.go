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

// Sessions manages sandboxes that persist between calls.
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
	facts
	Files      []inputFile `json:"files,omitempty" nullable:"false" doc:"files to stage in the workspace"`
	TTLSeconds *int64      `json:"ttl_seconds,omitempty" nullable:"false" minimum:"1" maximum:"86400" default:"900" doc:"the time until the session ends, in seconds"`
}

type session struct {
	SessionID string   `json:"session_id" example:"1f0c9a52d3b84e67a9d27f5c0e6b8a43"`
	ExpiresAt unixTime `json:"expires_at" doc:"Unix seconds, as a float; the sandbox and all its files are gone by then" example:"1764000900.25"`
}

type createdSession struct {
	SessionID     string   `json:"session_id" example:"1f0c9a52d3b84e67a9d27f5c0e6b8a43"`
	ExpiresAt     unixTime `json:"expires_at" doc:"Unix seconds, as a float; the sandbox and all its files are gone by then" example:"1764000900.25"`
	UnknownFields []string `json:"unknown_fields,omitempty" nullable:"false" doc:"fields of the request that the server does not know and has ignored"`
}

type sessionList struct {
	Sessions []session `json:"sessions" nullable:"false"`
}

type bashRequest struct {
	facts
	Cmd       string `json:"cmd" doc:"the command for bash -c; it starts in the workspace with an empty standard input"`
	TimeoutMS *int64 `json:"timeout_ms,omitempty" nullable:"false" minimum:"1" doc:"the wall-clock time limit of the command, in milliseconds; then it is killed with its background processes, except those started with setsid"`
}

type bashResponse struct {
	Stdout        string   `json:"stdout"`
	Stderr        string   `json:"stderr"`
	ExitCode      *int     `json:"exit_code" doc:"null if the command timed out; 128+N if signal N ended it"`
	TimedOut      bool     `json:"timed_out"`
	DurationMS    int64    `json:"duration_ms"`
	End           end      `json:"end" doc:"why the command ended"`
	Usage         usage    `json:"usage"`
	QueueMS       int64    `json:"queue_ms" doc:"the time before the command started: the calls of a session run one after the other"`
	StateLost     bool     `json:"state_lost,omitempty" doc:"the session's interpreter has ended; its variables, imports and threads are lost"`
	UnknownFields []string `json:"unknown_fields,omitempty" nullable:"false" doc:"fields of the request that the server does not know and has ignored"`
}

func toSession(info execution.SessionInfo) session {
	return session{SessionID: info.ID, ExpiresAt: unixTimeOf(info.Expires.Add(time.Millisecond - time.Nanosecond))} // rounded up
}

// inSession executes programs in a session.
type inSession struct {
	sessions Sessions
	id       string
}

// Execute runs a program in the session's interpreter.
func (s inSession) Execute(ctx context.Context, req execution.Request) (*execution.Result, error) {
	return s.sessions.RunPython(ctx, s.id, req)
}

// registerSessions adds the routes of sessions.
func (a *api) registerSessions() {
	a.registerSessionLives()
	a.registerSessionCalls()
	a.registerSessionFiles()
}

func (a *api) registerSessionLives() {
	register(a, policy{}, createSessionOperation(), a.createSession)
	register(a, policy{}, listSessionsOperation(), func(ctx context.Context, _ *struct{}) (*listSessionsOutput, error) {
		found, err := a.opts.Sessions.List(ctx)
		if err != nil {
			return nil, a.toHTTP(ctx, err)
		}
		list := sessionList{Sessions: make([]session, len(found))}
		for i, info := range found {
			list.Sessions[i] = toSession(info)
		}
		return &listSessionsOutput{list}, nil
	})
	register(a, policy{}, deleteSessionOperation(), func(ctx context.Context, in *sessionInput) (*struct{}, error) {
		if err := a.opts.Sessions.Delete(ctx, in.SessionID); err != nil {
			return nil, a.toHTTP(ctx, err)
		}
		return nil, nil //nolint:nilnil // the library's way to answer 204
	})
	// No id is invalid: an id of another form is unknown.
	delete(a.huma.OpenAPI().Paths[sessionPath].Delete.Responses, strconv.Itoa(http.StatusUnprocessableEntity))
}

type createSessionInput struct{ Body *createSession }

type createSessionOutput struct{ Body createdSession }

type listSessionsOutput struct{ Body sessionList }

type sessionInput struct {
	SessionID string `path:"session_id" doc:"the session_id that creating the session returned" example:"1f0c9a52d3b84e67a9d27f5c0e6b8a43"`
}

func (a *api) createSession(ctx context.Context, in *createSessionInput) (*createSessionOutput, error) {
	body := in.Body
	if body == nil {
		body = new(createSession)
	}
	if err := body.refuseNulls(); err != nil {
		return nil, err
	}
	j, err := a.newJob(ctx, &executeRequest{Files: body.Files})
	if err != nil {
		return nil, a.toHTTP(ctx, err)
	}
	defer j.exchange.End(ctx)
	var ttl time.Duration
	if body.TTLSeconds != nil {
		ttl = time.Duration(*body.TTLSeconds) * time.Second
	}
	info, err := a.opts.Sessions.Create(ctx, ttl, j.Files)
	if err != nil {
		return nil, a.toHTTP(ctx, err)
	}
	made := toSession(info)
	return &createSessionOutput{createdSession{SessionID: made.SessionID, ExpiresAt: made.ExpiresAt, UnknownFields: body.unknown}}, nil
}

type bashInput struct {
	SessionID string `path:"session_id" doc:"the session_id that creating the session returned" example:"1f0c9a52d3b84e67a9d27f5c0e6b8a43"`
	Body      bashRequest
}

type bashOutput struct{ Body bashResponse }

type sessionExecuteInput struct {
	SessionID string `path:"session_id" doc:"the session_id that creating the session returned" example:"1f0c9a52d3b84e67a9d27f5c0e6b8a43"`
	Body      executeRequest
}

func (in *sessionExecuteInput) plain() *executeInput {
	return &executeInput{Body: in.Body}
}

func (a *api) registerSessionCalls() {
	register(a, policy{}, bashOperation(), a.bash)
	register(a, policy{}, sessionExecuteOperation(), func(ctx context.Context, in *sessionExecuteInput) (*executeOutput, error) {
		return a.execute(ctx, inSession{a.opts.Sessions, in.SessionID}, in.plain())
	})
	register(a, policy{}, sessionStreamOperation(a.huma), func(ctx context.Context, in *sessionExecuteInput) (*huma.StreamResponse, error) {
		return a.executeStream(ctx, inSession{a.opts.Sessions, in.SessionID}, in.plain())
	})
}

func (a *api) bash(ctx context.Context, in *bashInput) (*bashOutput, error) {
	if err := in.Body.refuseNulls(); err != nil {
		return nil, err
	}
	cmd := execution.Command{Command: in.Body.Cmd}
	if in.Body.TimeoutMS != nil {
		cmd.Timeout = milliseconds(*in.Body.TimeoutMS)
	}
	r, err := a.opts.Sessions.RunBash(ctx, in.SessionID, cmd)
	if err != nil {
		return nil, a.toHTTP(ctx, err)
	}
	return &bashOutput{bashResponse{
		Stdout: r.Stdout, Stderr: r.Stderr, ExitCode: r.ExitCode, TimedOut: r.TimedOut(),
		DurationMS: r.Duration.Milliseconds(), QueueMS: r.Queue.Milliseconds(), StateLost: r.StateLost,
		End:           end{Reason: r.End.Reason, Signal: r.End.Signal, Message: r.End.Message},
		Usage:         usage{CPUMS: r.Usage.CPU.Milliseconds(), PeakMemoryBytes: r.Usage.PeakMemoryBytes},
		UnknownFields: in.Body.unknown,
	}}, nil
}

func (a *api) registerSessionFiles() {
	limit := a.opts.Limits.WorkspaceBytes
	file := bodyPolicy{limit: limit, refusal: fileTooLarge(limit), within: transferTime, isFile: true}
	a.registerRaw(policy{}, readFileOperation(), a.readFile)
	a.registerRaw(policy{body: file}, writeFileOperation(), a.writeFile)
	a.handle(sessionPath+"/files", policy{ignoresBody: true}, notFound) // the mux would redirect to files/, in HTML
}

func (a *api) readFile(w http.ResponseWriter, r *http.Request) error {
	path := r.PathValue("path")
	answer := fileAnswer{w: w, path: path}
	err := a.opts.Sessions.ReadFile(r.Context(), r.PathValue("session_id"), execution.ReadRequest{Path: path, Keep: answer.keep})
	if err != nil && answer.begun {
		panic(http.ErrAbortHandler) // the client must not mistake a part of the file for the whole
	}
	return asURLFault(err)
}

// fileAnswer sends a file to the client while it is read from the sandbox.
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
	// A client that does not read, or has not sent its whole body, must not delay shutdown.
	defer context.AfterFunc(ctx, func() {
		_ = control.SetWriteDeadline(time.Now())
		_ = control.SetReadDeadline(time.Now())
	})()
	_, err := io.Copy(struct{ io.Writer }{a.w}, content)
	return a.path, err
}

func (a *api) writeFile(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength < 0 {
		return &apiError{status: http.StatusLengthRequired, Detail: "the request must have a Content-Length"}
	}
	source := &body{w: w, r: r.Body}
	err := a.opts.Sessions.WriteFiles(r.Context(), r.PathValue("session_id"), execution.WriteRequest{
		Files: []execution.Input{{Path: r.PathValue("path"), Size: r.ContentLength, Source: source}}, Spent: source.spent,
	})
	if err != nil {
		return asURLFault(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// body is a request's body, which can be read only once.
type body struct {
	w      http.ResponseWriter
	r      io.Reader
	opened bool
}

// Open implements [execution.Source]. Reads from a client that sends nothing fail when
// ctx ends.
func (b *body) Open(ctx context.Context) (io.ReadCloser, error) {
	if b.opened {
		return nil, &execution.Error{Code: execution.Unavailable, Message: "the session does not answer; try again"}
	}
	b.opened = true
	control := http.NewResponseController(b.w)
	stop := context.AfterFunc(ctx, func() { _ = control.SetReadDeadline(time.Now()) }) // not for test recorders
	return &bodySource{b.r, stop}, nil
}

// spent is for [execution.WriteRequest].
func (b *body) spent() bool { return b.opened }

type bodySource struct {
	io.Reader
	stop func() bool
}

// Close does not close the body: the server does.
func (b *bodySource) Close() error {
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
