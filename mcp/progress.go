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
	// firstProgress is how long a call runs before its first progress notification, and
	// progressEvery the time between further ones.
	firstProgress = 2 * time.Second
	progressEvery = time.Second
	// keptOutput is how much of the latest output is kept for notifications, and sentLine
	// how much of its last line is sent.
	keptOutput = 1000
	sentLine   = 200
)

// notifier sends a notification to the client of a context's request.
type notifier func(ctx context.Context, method string, params map[string]any) error

// progress sends a client the latest line of output while a call runs.
type progress struct {
	notify  notifier
	token   mcpsdk.ProgressToken
	started time.Time
	cancel  context.CancelFunc
	over    chan struct{} // closed when nothing more is sent

	mu     sync.Mutex
	latest map[execution.Stream]string // the end of each stream's output
	last   execution.Stream            // the stream with the latest output
}

// follow starts the progress notifications of a call. It returns nil, which stop accepts, if
// the client did not ask for them. The caller must call stop.
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
	go p.run(ctx)
	return p
}

// output records what the program prints. It is an [execution.Request.Output].
func (p *progress) output(stream execution.Stream, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text = p.latest[stream] + text
	if excess := len(text) - keptOutput; excess > 0 {
		text = text[excess:]
	}
	p.latest[stream], p.last = strings.ToValidUTF8(text, ""), stream
}

// run sends notifications until ctx ends.
func (p *progress) run(ctx context.Context) {
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
		_ = p.notify(ctx, string(mcpsdk.MethodNotificationProgress), map[string]any{ // a client that does not read misses it
			"progressToken": p.token, "progress": time.Since(p.started).Seconds(), "message": p.message(),
		})
	}
}

func (p *progress) message() string {
	p.mu.Lock()
	line := render.LastLine(p.latest[p.last], sentLine)
	p.mu.Unlock()
	if line == "" {
		return fmt.Sprintf("running for %d s", time.Since(p.started)/time.Second)
	}
	return line
}

// stop stops the notifications and waits for the last one.
func (p *progress) stop() {
	if p == nil {
		return
	}
	p.cancel()
	<-p.over
}
