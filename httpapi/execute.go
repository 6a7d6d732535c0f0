package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/vivarium-sandbox/vivarium/execution"
)

type executeInput struct{ Body executeRequest }

type executeRequest struct {
	facts
	Code                string            `json:"code" doc:"Python source text"`
	Stdin               *string           `json:"stdin,omitempty" nullable:"true" doc:"the program's standard input"`
	Args                []string          `json:"args,omitempty" nullable:"false" doc:"the program's arguments, sys.argv[1:]; at most 256"`
	Env                 map[string]string `json:"env,omitempty" doc:"environment variables of this call, by name; the values are never logged or repeated; at most 64, and 64 KB together with args"`
	TimeoutMS           int64             `json:"timeout_ms,omitempty" minimum:"1" doc:"the wall-clock time limit of the program, in milliseconds"`
	LastLineInteractive *looseBool        `json:"last_line_interactive,omitempty" nullable:"false" doc:"display the value of the last statement, if it is a bare expression, as a REPL does"`
	Files               []inputFile       `json:"files,omitempty" nullable:"false" doc:"files to stage in the workspace"`
}

type inputFile struct {
	Path          string  `json:"path" doc:"where to stage the file, relative to the workspace"`
	FileID        *string `json:"file_id,omitempty" nullable:"false" doc:"the id of an uploaded file"`
	ContentBase64 *string `json:"content_base64,omitempty" nullable:"false" doc:"the bytes of the file, instead of file_id"`
}

type executeOutput struct {
	ServerTiming string `header:"Server-Timing" doc:"the time of each stage, in milliseconds" example:"admit;dur=0.02, lease;dur=0.01, send;dur=0.41, run;dur=1.02, kill;dur=0.11, collect;dur=0.20"`
	Body         executeResponse
}

// serverTiming lists a run's stages (https://www.w3.org/TR/server-timing/).
func serverTiming(s execution.Stages) string {
	var text []byte
	for _, stage := range []struct {
		name string
		took time.Duration
	}{
		{"admit", s.Admit},
		{"lease", s.Lease},
		{"send", s.Send},
		{"run", s.Run},
		{"kill", s.Kill},
		{"collect", s.Collect},
		{"clean", s.Clean},
		{"prepare", s.Prepare},
	} {
		if len(text) > 0 {
			text = append(text, ", "...)
		}
		text = append(append(text, stage.name...), ";dur="...)
		text = strconv.AppendFloat(text, float64(stage.took)/float64(time.Millisecond), 'f', 3, 64)
	}
	return string(text)
}

type executeResponse struct {
	Stdout        string        `json:"stdout" doc:"UTF-8 with invalid bytes replaced; cut at MAX_OUTPUT_BYTES, then ends with \\n...[truncated]"`
	Stderr        string        `json:"stderr" doc:"as stdout"`
	ExitCode      *int          `json:"exit_code" doc:"null if the program timed out; 128+N if signal N ended it"`
	TimedOut      bool          `json:"timed_out"`
	DurationMS    int64         `json:"duration_ms" doc:"the run time of the program, without queueing"`
	Files         []outputFile  `json:"files" nullable:"false" doc:"files that the run created or changed"`
	End           end           `json:"end" doc:"why the run ended"`
	Usage         usage         `json:"usage" doc:"the resources that the run used"`
	QueueMS       int64         `json:"queue_ms" doc:"the time before the program started"`
	SkippedFiles  []skippedFile `json:"skipped_files" nullable:"false" doc:"files that the run created or changed and that are not returned, with the reason"`
	Results       []displayed   `json:"results" nullable:"false" doc:"the values that the program displayed, the last one included: each form by its media type, as in Jupyter; bounded by MAX_OUTPUT_BYTES together"`
	ExpiresAt     *unixTime     `json:"expires_at,omitempty" doc:"in a session: when it ends unless another call is made before, in Unix seconds" example:"1764000901.5"`
	StateLost     bool          `json:"state_lost,omitempty" doc:"in a session: its interpreter has ended; its variables, imports and threads are lost"`
	UnknownFields []string      `json:"unknown_fields,omitempty" nullable:"false" doc:"fields of the request that the server does not know and has ignored"`
}

type outputFile struct {
	Path      string `json:"path" doc:"relative to the workspace"`
	Kind      string `json:"kind" enum:"file"`
	FileID    string `json:"file_id" doc:"the id of the file in /v1/files"`
	SizeBytes int64  `json:"size_bytes"`
}

type end struct {
	Reason  execution.Reason `json:"reason" enum:"exited,signal,timeout,cpu_limit,memory_limit,process_limit,workspace_limit,output_limit,cancelled,sandbox_lost"`
	Signal  string           `json:"signal,omitempty" doc:"the signal that ended the program" example:"SIGSEGV"`
	Message string           `json:"message,omitempty"`
}

type usage struct {
	CPUMS           int64 `json:"cpu_ms" doc:"the CPU time of all processes"`
	PeakMemoryBytes int64 `json:"peak_memory_bytes" doc:"the peak of the resident memory of the largest process"`
}

type skippedFile struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

func (a *api) registerExecute() {
	register(a, policy{}, huma.Operation{
		OperationID: "execute", Method: http.MethodPost, Path: "/v1/execute", Tags: []string{tagRun},
		Summary: "Run a program",
		Description: "Stages files, runs the program and returns its output, and the files that it created or changed, when it has " +
			"ended. A program that fails returns 200; only a failure of the service returns 4xx or 5xx.",
		Metadata: illustrate(executeIllustration()),
		Errors:   runErrors(),
	}, func(ctx context.Context, in *executeInput) (*executeOutput, error) {
		return a.execute(ctx, a.opts.Executor, in)
	})
	// The defaults are not in the fields' tags: the library would use them as values. That of
	// the timeout may be more than the settings allow.
	fields := a.huma.OpenAPI().Components.Schemas.Map()["ExecuteRequest"].Properties
	fields["timeout_ms"].Default = execution.DefaultTimeout.Milliseconds()
	fields["last_line_interactive"].Default = true
}

func (a *api) execute(ctx context.Context, executor Executor, in *executeInput) (*executeOutput, error) {
	j, err := in.job(ctx, a)
	if err != nil {
		return nil, a.toHTTP(ctx, err)
	}
	defer j.exchange.End(ctx)
	result, err := executor.Execute(ctx, j.Request)
	if err != nil {
		return nil, a.toHTTP(ctx, err)
	}
	if ctx.Err() == nil {
		j.exchange.Deliver()
	}
	return &executeOutput{ServerTiming: serverTiming(result.Stages), Body: response(result, j.unknown)}, nil
}

// job translates the request.
func (in *executeInput) job(ctx context.Context, a *api) (*job, error) {
	if err := in.Body.refuseNulls(); err != nil {
		return nil, err
	}
	return a.newJob(ctx, &in.Body)
}

// milliseconds converts without overflow: a value that is too large stays too large.
func milliseconds(n int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(min(n, most)) * time.Millisecond
}

func response(r *execution.Result, unknown []string) executeResponse {
	out := executeResponse{
		Stdout: r.Stdout, Stderr: r.Stderr, ExitCode: r.ExitCode, TimedOut: r.TimedOut(),
		DurationMS: r.Duration.Milliseconds(), QueueMS: r.Queue.Milliseconds(),
		End:          end{Reason: r.End.Reason, Signal: r.End.Signal, Message: r.End.Message},
		Usage:        usage{CPUMS: r.Usage.CPU.Milliseconds(), PeakMemoryBytes: r.Usage.PeakMemoryBytes},
		Files:        make([]outputFile, len(r.Files)),
		SkippedFiles: make([]skippedFile, len(r.Skipped)), StateLost: r.StateLost,
		Results: displayedValues(r.Displayed), UnknownFields: unknown,
	}
	if r.Session.ID != "" {
		expires := endOf(r.Session)
		out.ExpiresAt = &expires
	}
	for i, file := range r.Files {
		out.Files[i] = outputFile{Path: file.Path, Kind: "file", FileID: file.ID, SizeBytes: file.Size}
	}
	for i, file := range r.Skipped {
		out.SkippedFiles[i] = skippedFile{Path: file.Path, Reason: file.Reason}
	}
	return out
}
