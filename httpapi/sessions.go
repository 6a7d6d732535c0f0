package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Sessions manages sandboxes that persist between calls.
type Sessions interface {
	Create(ctx context.Context, ttl time.Duration, files []execution.Input) (execution.SessionInfo, error)
	List(ctx context.Context) ([]execution.SessionInfo, error)
	Extend(ctx context.Context, id string, idle time.Duration) (execution.SessionInfo, error)
	Delete(ctx context.Context, id string) error
	RunPython(ctx context.Context, id string, req execution.Request) (*execution.Result, error)
	RunBash(ctx context.Context, id string, cmd execution.Command) (*execution.Result, error)
	ReadFile(ctx context.Context, id string, req execution.ReadRequest) error
	WriteFiles(ctx context.Context, id string, req execution.WriteRequest) error
	ListFiles(ctx context.Context, id string, req execution.ListRequest) (execution.Listing, error)
	PackFolder(ctx context.Context, id string, req execution.PackRequest) error
	DeleteFile(ctx context.Context, id, path string) error
	RenameFile(ctx context.Context, id string, req execution.RenameRequest) error
}

const (
	sessionsPath = "/v1/sessions"
	sessionPath  = sessionsPath + "/{session_id}"
)

type createSession struct {
	facts
	Files      []inputFile `json:"files,omitempty" nullable:"false" doc:"files to stage in the workspace"`
	TTLSeconds *int64      `json:"ttl_seconds,omitempty" nullable:"false" minimum:"1" maximum:"86400" default:"900" doc:"the time without a call after which the session ends, in seconds"`
}

type session struct {
	SessionID string   `json:"session_id" example:"1f0c9a52d3b84e67a9d27f5c0e6b8a43"`
	ExpiresAt unixTime `json:"expires_at" doc:"Unix seconds, as a float; the sandbox and all its files are gone by then, unless a call is made before" example:"1764000900.25"`
}

type createdSession struct {
	SessionID     string   `json:"session_id" example:"1f0c9a52d3b84e67a9d27f5c0e6b8a43"`
	ExpiresAt     unixTime `json:"expires_at" doc:"Unix seconds, as a float; the sandbox and all its files are gone by then, unless a call is made before" example:"1764000900.25"`
	UnknownFields []string `json:"unknown_fields,omitempty" nullable:"false" doc:"fields of the request that the server does not know and has ignored"`
}

type extendSession struct {
	facts
	TTLSeconds int64 `json:"ttl_seconds" minimum:"1" maximum:"86400" doc:"the new time without a call after which the session ends, in seconds; it starts again"`
}

type sessionList struct {
	Sessions []session `json:"sessions" nullable:"false"`
}

type bashRequest struct {
	facts
	Cmd       string            `json:"cmd" doc:"the command for bash -c; it starts in the workspace with an empty standard input"`
	Args      []string          `json:"args,omitempty" nullable:"false" doc:"the arguments of the command, $1, $2 and so on; at most 256"`
	Env       map[string]string `json:"env,omitempty" doc:"environment variables of this call, by name; the values are never logged or repeated; at most 64, and 64 KB together with args"`
	TimeoutMS *int64            `json:"timeout_ms,omitempty" nullable:"false" minimum:"1" doc:"the wall-clock time limit of the command, in milliseconds; then it is killed with its background processes, except those started with setsid"`
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
	ExpiresAt     unixTime `json:"expires_at" doc:"Unix seconds, as a float; when the session ends unless another call is made before" example:"1764000901.5"`
	UnknownFields []string `json:"unknown_fields,omitempty" nullable:"false" doc:"fields of the request that the server does not know and has ignored"`
}

func toSession(info execution.SessionInfo) session {
	return session{SessionID: info.ID, ExpiresAt: unixTimeOf(info.Expires.Add(time.Millisecond - time.Nanosecond))} // rounded up
}

func toCreated(info execution.SessionInfo, f *facts) createdSession {
	s := toSession(info)
	return createdSession{SessionID: s.SessionID, ExpiresAt: s.ExpiresAt, UnknownFields: f.unknown}
}

// endOf returns when a session ends.
func endOf(info execution.SessionInfo) unixTime { return unixTimeOf(info.Expires) }

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
	register(a, policy{}, extendSessionOperation(), a.extendSession)
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
	return &createSessionOutput{toCreated(info, &body.facts)}, nil
}

type extendSessionInput struct {
	SessionID string `path:"session_id" doc:"the session_id that creating the session returned" example:"1f0c9a52d3b84e67a9d27f5c0e6b8a43"`
	Body      extendSession
}

func (a *api) extendSession(ctx context.Context, in *extendSessionInput) (*createSessionOutput, error) {
	info, err := a.opts.Sessions.Extend(ctx, in.SessionID, time.Duration(in.Body.TTLSeconds)*time.Second)
	if err != nil {
		return nil, a.toHTTP(ctx, err)
	}
	return &createSessionOutput{toCreated(info, &in.Body.facts)}, nil
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
	cmd := execution.Command{Command: in.Body.Cmd, Args: in.Body.Args, Env: in.Body.Env}
	if in.Body.TimeoutMS != nil {
		cmd.Timeout = milliseconds(*in.Body.TimeoutMS)
	}
	r, err := a.opts.Sessions.RunBash(ctx, in.SessionID, cmd)
	if err != nil {
		return nil, a.toHTTP(ctx, err)
	}
	return &bashOutput{bashResponse{
		Stdout: r.Stdout, Stderr: r.Stderr, ExitCode: r.ExitCode, TimedOut: r.TimedOut(),
		DurationMS: r.Duration.Milliseconds(), QueueMS: r.Queue.Milliseconds(), StateLost: r.StateLost, ExpiresAt: endOf(r.Session),
		End:   end{Reason: r.End.Reason, Signal: r.End.Signal, Message: r.End.Message},
		Usage: usage{CPUMS: r.Usage.CPU.Milliseconds(), PeakMemoryBytes: r.Usage.PeakMemoryBytes},

		UnknownFields: in.Body.unknown,
	}}, nil
}
