package mcp

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp/render"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

const (
	// firstProgress is after how long a run's client is first told that it goes
	// on, and progressEvery how often from then on.
	firstProgress = 2 * time.Second
	progressEvery = time.Second
	// progressGrace is how long before a result there is no progress: the library
	// (v1.2.1) hands the two to its transports on ways of their own, on which one
	// can overtake the other or get lost.
	progressGrace = 100 * time.Millisecond
	// keptLine is how much of the latest output is kept to be told.
	keptLine = 1000
	// toldLine is how much of a line is told.
	toldLine = 200
)

// notifier sends a notification to the client that a context is of.
type notifier func(ctx context.Context, method string, params map[string]any) error

// progress tells a client that a call goes on, with the latest line of output.
type progress struct {
	notify  notifier
	token   mcpsdk.ProgressToken
	started time.Time
	cancel  context.CancelFunc
	over    chan struct{} // closed when nothing more is told
	told    time.Time     // the last time; valid when over is closed

	mu     sync.Mutex
	latest map[execution.Stream]string // the end of what each stream has printed
	last   execution.Stream            // the one that printed last
}

// follow begins to tell of a call, if its client asked for that: else it gives
// nil, which stop takes too. The caller must call stop.
func (s *Server) follow(ctx context.Context, call mcpsdk.CallToolRequest) *progress {
	if call.Params.Meta == nil || call.Params.Meta.ProgressToken == nil {
		return nil
	}
	return newProgress(ctx, call.Params.Meta.ProgressToken, func(ctx context.Context, method string, params map[string]any) error {
		return transport.Notify(ctx, s.server, method, params)
	})
}

func newProgress(ctx context.Context, token mcpsdk.ProgressToken, notify notifier) *progress {
	ctx, cancel := context.WithCancel(ctx)
	p := &progress{
		notify: notify, token: token,
		started: time.Now(), cancel: cancel, over: make(chan struct{}), latest: make(map[execution.Stream]string),
	}
	go p.tell(ctx)
	return p
}

// output takes what the program prints. It is for [execution.Request.Output].
func (p *progress) output(stream execution.Stream, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text = p.latest[stream] + text
	if excess := len(text) - keptLine; excess > 0 {
		text = text[excess:]
	}
	p.latest[stream], p.last = strings.ToValidUTF8(text, ""), stream
}

func (p *progress) tell(ctx context.Context) {
	defer close(p.over)
	timer := time.NewTimer(firstProgress)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(progressEvery)
		p.told = time.Now()
		_ = p.notify(ctx, string(mcpsdk.MethodNotificationProgress), map[string]any{ // a client that does not read misses it
			"progressToken": p.token, "progress": time.Since(p.started).Seconds(), "message": p.message(),
		})
	}
}

func (p *progress) message() string {
	p.mu.Lock()
	line := render.LastLine(p.latest[p.last], toldLine)
	p.mu.Unlock()
	if line == "" {
		return fmt.Sprintf("running for %d s", time.Since(p.started)/time.Second)
	}
	return line
}

// stop stops telling, and waits until a result cannot overtake what was told.
func (p *progress) stop(ctx context.Context) {
	if p == nil {
		return
	}
	p.cancel()
	<-p.over
	if wait := progressGrace - time.Since(p.told); wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}
