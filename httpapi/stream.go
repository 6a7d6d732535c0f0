package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// heartbeatTime is the longest time without an event: proxies close silent connections,
// often after 30 or 60 s.
const heartbeatTime = 15 * time.Second

// outputEvent is a piece of a program's output.
type outputEvent struct {
	Stream execution.Stream `json:"stream" enum:"stdout,stderr"`
	Data   string           `json:"data" doc:"never splits a character"`
}

// resultEvent is the answer of /v1/execute without the output.
type resultEvent struct {
	executeResponse

	// These hide the fields of the answer. They are never set.
	Stdout *string `json:"stdout,omitempty"`
	Stderr *string `json:"stderr,omitempty"`
}

// errorEvent is a failure of the service after the program's start.
type errorEvent struct {
	Message any `json:"message" doc:"as detail in an error"`
}

func (a *api) registerStream() {
	register(a, policy{}, huma.Operation{
		OperationID: "execute-stream", Method: http.MethodPost, Path: "/v1/execute/stream", Tags: []string{tagRun},
		Summary: "Run a program and stream its output",
		Description: "Takes the request of /v1/execute. Errors before the start are ordinary answers. Once the program has started, the " +
			"answer is a stream of events: output as it appears, then one result or error.",
		Metadata:  illustrate(streamIllustration()),
		Errors:    runErrors(),
		Responses: map[string]*huma.Response{"200": {Content: streamContent(a.huma)}},
	}, func(ctx context.Context, in *executeInput) (*huma.StreamResponse, error) {
		return a.executeStream(ctx, a.opts.Executor, in)
	})
}

func (a *api) executeStream(ctx context.Context, executor Executor, in *executeInput) (*huma.StreamResponse, error) {
	j, err := in.job(ctx, a)
	if err != nil {
		return nil, a.toHTTP(ctx, err)
	}
	run := startRun(ctx, executor, j)
	if err := run.awaitStart(); err != nil {
		run.end(ctx)
		return nil, a.toHTTP(ctx, err)
	}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		defer run.end(ctx)
		_, w := humago.Unwrap(c)
		events := newEventWriter(w)
		if events.begin() == nil && run.follow(events) == nil {
			if run.conclude(events, func(err error) error { return a.toHTTP(ctx, err) }) == nil && run.err == nil {
				j.exchange.Deliver()
			}
		}
	}}, nil
}

// streamedRun is a run whose output is streamed.
type streamedRun struct {
	job     *job
	cancel  context.CancelFunc
	started chan struct{} // closed when the program starts
	done    chan struct{} // closed when result and err are valid
	result  *execution.Result
	err     error
	output  backlog
	sent    map[execution.Stream]int // bytes of each stream that the client was sent
}

// startRun runs a program on a goroutine of its own. A client that reads slowly does not
// delay the run: deadlines hold, and the program ends as it would with /v1/execute. The
// caller must call end.
func startRun(ctx context.Context, executor Executor, j *job) *streamedRun {
	ctx, cancel := context.WithCancel(ctx)
	run := &streamedRun{
		job: j, cancel: cancel, started: make(chan struct{}), done: make(chan struct{}),
		output: backlog{news: make(chan struct{}, 1)}, sent: make(map[execution.Stream]int),
	}
	req := j.Request
	req.Started = sync.OnceFunc(func() { close(run.started) })
	req.Output = run.output.add
	go func() {
		defer close(run.done)
		defer func() {
			if cause := recover(); cause != nil { // the middleware recovers only on the request's goroutine
				run.err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
			}
		}()
		run.result, run.err = executor.Execute(ctx, req)
	}()
	return run
}

// awaitStart waits until the program starts. If it does not, the run is over, and the
// error is the cause.
func (r *streamedRun) awaitStart() error {
	select {
	case <-r.started:
		return nil
	case <-r.done:
	}
	select {
	case <-r.started:
		return nil // both are closed
	default:
		return r.err
	}
}

// end cancels the run, waits until it has ended, and ends its job.
func (r *streamedRun) end(ctx context.Context) {
	r.cancel()
	<-r.done
	r.job.exchange.End(ctx)
}

// follow sends output as it appears until the run is over.
func (r *streamedRun) follow(events *eventWriter) error {
	silence := time.NewTimer(heartbeatTime)
	defer silence.Stop()
	for {
		var err error
		select {
		case <-r.output.news:
			err = r.sendAll(events, r.output.take())
		case <-silence.C:
			err = events.ping()
		case <-r.done:
			return r.sendAll(events, r.output.take())
		}
		if err != nil {
			return err
		}
		silence.Reset(heartbeatTime)
	}
}

// sendAll sends output in events of bounded size. Escaped output is up to six times as
// large; a client that does not read holds only one event in that form.
func (r *streamedRun) sendAll(events *eventWriter, pieces []piece) error {
	for _, p := range pieces {
		for text := p.text; len(text) > 0; {
			event := firstPiece(text)
			if err := events.event("output", outputEvent{p.stream, string(event)}); err != nil {
				return err
			}
			text = text[len(event):]
			r.sent[p.stream] += len(event)
		}
	}
	return nil
}

// conclude sends the rest of the output and the result, or the error in the shape of
// the contract.
func (r *streamedRun) conclude(events *eventWriter, shape func(error) error) error {
	if r.err != nil {
		failure := shape(r.err)
		message := any(failure.Error())
		if shaped, ok := errors.AsType[*apiError](failure); ok {
			message = shaped.Detail
		}
		return events.event("error", errorEvent{message})
	}
	var rest []piece
	for _, whole := range []struct {
		stream execution.Stream
		text   string
	}{{execution.Stdout, r.result.Stdout}, {execution.Stderr, r.result.Stderr}} {
		if sent := r.sent[whole.stream]; sent < len(whole.text) {
			rest = append(rest, piece{whole.stream, []byte(whole.text[sent:])})
		}
	}
	if err := r.sendAll(events, rest); err != nil {
		return err
	}
	return events.event("result", resultEvent{executeResponse: response(r.result, r.job.unknown)})
}

// piece is output of one stream.
type piece struct {
	stream execution.Stream
	text   []byte
}

// maxPieces bounds the memory of a backlog beside its text.
const maxPieces = 1000

// backlog is output that waits to be sent. It grows while the client does not read. The
// executor bounds it by the output limit.
type backlog struct {
	news chan struct{} // contains an element if there may be pieces

	mu     sync.Mutex
	pieces []piece // adjacent pieces are of different streams
}

// add appends output. It does not block.
func (b *backlog) add(stream execution.Stream, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := len(b.pieces) - 1
	switch {
	case last >= 0 && b.pieces[last].stream == stream:
		b.pieces[last].text = append(b.pieces[last].text, text...)
	case len(b.pieces) >= maxPieces:
		// The order between the streams is lost; the order within each is kept.
		b.pieces[last-1].text = append(b.pieces[last-1].text, text...)
	default:
		b.pieces = append(b.pieces, piece{stream, []byte(text)})
	}
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// take removes and returns all pieces.
func (b *backlog) take() []piece {
	b.mu.Lock()
	defer b.mu.Unlock()
	pieces := b.pieces
	b.pieces = nil
	return pieces
}
