package transport

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// peer is a client that says what it says, and hears what it is told, over one
// connection: stdio, or a stream of the legacy HTTP transport. The library
// answers; its own transports of these kinds (v1.2.1) hold any number of answers
// for a client that does not read, do not end before it has, forget to cancel a
// call that still waits, and know no batches.
type peer struct {
	opts    Options
	session *mcpserver.InProcessSession
	// calls and others bound the tool calls, and the requests for something else,
	// that are under way: from their beginning until their answer is being written.
	calls, others chan struct{}
	answers       chan []byte
	left          chan struct{} // closed when nobody reads any more
	leave         func()        // closes it
	requests      sync.WaitGroup

	mu      sync.Mutex
	waiting map[any]*request // by id
}

// request is one that has come and is not answered yet.
type request struct {
	cancel    context.CancelFunc
	calledOff chan struct{} // closed when its client has cancelled it
}

// otherRequests is how many requests for something else than a call of a tool
// are answered at once: each may hold a file.
const otherRequests = 4

func (t *Transports) newPeer(session string) *peer {
	left := make(chan struct{})
	return &peer{
		opts: t.opts, session: mcpserver.NewInProcessSession(session, nil),
		calls: make(chan struct{}, t.opts.Parallel), others: make(chan struct{}, otherRequests),
		answers: make(chan []byte), left: left, leave: sync.OnceFunc(func() { close(left) }), waiting: make(map[any]*request),
	}
}

// join makes the client known to the library, and gives the context that its
// requests have.
func (p *peer) join(ctx context.Context) (context.Context, error) {
	if err := p.opts.Server.RegisterSession(ctx, p.session); err != nil {
		return nil, err
	}
	return p.opts.Server.WithContext(ctx, p.session), nil
}

func (p *peer) part(ctx context.Context) {
	p.opts.Server.UnregisterSession(ctx, p.session.SessionID())
}

// take takes what a client says: a message, or a batch of them. The account of ctx is
// closed by as many users as messages are answered, beside its own.
func (p *peer) take(ctx context.Context, message json.RawMessage) {
	account := execution.AccountOf(ctx)
	account.Share()
	if !json.Valid(message) {
		p.tellLater(errorAnswer(nil, mcpsdk.PARSE_ERROR, "Parse error"), account.Close)
		return
	}
	if !isBatch(message) {
		p.takeOne(ctx, message, account.Close)
		return
	}
	defer account.Close()
	var batch []json.RawMessage
	if json.Unmarshal(message, &batch) != nil || len(batch) == 0 || len(batch) > maxBatch {
		account.Share()
		p.tellLater(errorAnswer(nil, mcpsdk.INVALID_REQUEST, batchFault), account.Close)
		return
	}
	for _, message := range batch {
		account.Share()
		p.takeOne(ctx, message, account.Close)
	}
}

// takeOne takes a message. When its answer is being written, or there is none, it
// calls done.
func (p *peer) takeOne(ctx context.Context, message json.RawMessage, done func()) {
	e := open(message)
	refusal := e.refusal(message)
	id, ok := e.id()
	switch {
	case e.Method == string(mcpsdk.MethodNotificationCancelled) && !e.hasID():
		p.cancel(message)
		done()
	case refusal != nil:
		p.tellLater(refusal, done)
	case e.Method != "" && ok:
		p.begin(ctx, e.Method, id, message, done)
	case e.hasID() && !ok:
		p.tellLater(errorAnswer(nil, mcpsdk.INVALID_REQUEST, "The id must be a string or a number"), done)
	default:
		p.tellLater(p.opts.Server.HandleMessage(ctx, message), done)
	}
}

// cancel calls off a request, whether it runs or waits.
func (p *peer) cancel(notification json.RawMessage) {
	var cancelled struct {
		Params struct {
			RequestID json.RawMessage `json:"requestId"`
		} `json:"params"`
	}
	if json.Unmarshal(notification, &cancelled) != nil {
		return
	}
	id, _ := envelope{ID: cancelled.Params.RequestID}.id()
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.waiting[id]; r != nil {
		delete(p.waiting, id)
		close(r.calledOff)
		r.cancel()
	}
}

// begin has a request be answered when its turn comes.
func (p *peer) begin(ctx context.Context, method string, id any, message json.RawMessage, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	r := &request{cancel, make(chan struct{})}
	p.mu.Lock()
	p.waiting[id] = r
	p.mu.Unlock()
	p.requests.Go(func() {
		defer done()
		defer p.end(id, r)
		slots := p.slotsFor(method)
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			p.tell(p.answer(ctx, id, message))
		case <-r.calledOff:
			p.tell(errorAnswer(id, codeCancelled, "The request was cancelled before it began"))
		case <-p.left:
		}
	})
}

// codeCancelled is what the Language Server Protocol, whose cancellations these
// are, has for a request that was cancelled.
const codeCancelled = -32800

func (p *peer) end(id any, r *request) {
	r.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting[id] == r {
		delete(p.waiting, id)
	}
}

// slotsFor gives the bound that a request is under. One to hear of changes goes on
// for as long as its client likes, and holds nothing.
func (p *peer) slotsFor(method string) chan struct{} {
	switch method {
	case string(mcpsdk.MethodToolsCall):
		return p.calls
	case string(mcpsdk.MethodSubscriptionsListen):
		return make(chan struct{}, 1)
	}
	return p.others
}

func (p *peer) answer(ctx context.Context, id any, message json.RawMessage) (answer mcpsdk.JSONRPCMessage) {
	defer func() {
		if cause := recover(); cause != nil {
			p.opts.Log.ErrorContext(ctx, "a request failed", "error", fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
			answer = errorAnswer(id, mcpsdk.INTERNAL_ERROR, "Internal error")
		}
	}()
	defer forgetClient(p.session) // a request that is refused early may leave something too
	return p.opts.Server.HandleMessage(ctx, message)
}

// tell has a message be written, unless it is nil or nobody reads any more.
func (p *peer) tell(message mcpsdk.JSONRPCMessage) {
	if message == nil {
		return
	}
	data, err := json.Marshal(message)
	if err != nil {
		p.opts.Log.Error("an answer could not be written as JSON", "error", err)
		return
	}
	select {
	case p.answers <- data:
	case <-p.left:
	}
}

// tellNow has a message be written before anything else is read, so that a client that
// does not read cannot have any number of them wait.
func (p *peer) tellNow(ctx context.Context, message mcpsdk.JSONRPCMessage) {
	told := make(chan struct{})
	p.tellLater(message, func() { close(told) })
	select {
	case <-told:
	case <-ctx.Done():
	}
}

// tellLater is for who must go on, whether the client reads or not.
func (p *peer) tellLater(message mcpsdk.JSONRPCMessage, done func()) {
	if message == nil {
		done()
		return
	}
	p.requests.Go(func() {
		defer done()
		p.tell(message)
	})
}

// write writes what the client is told, and nothing at each beat, until nobody
// reads it any more.
func (p *peer) write(write func(message []byte) error, beat <-chan time.Time) {
	defer p.leave()
	for {
		var message []byte
		select {
		case <-p.left:
			return
		case message = <-p.answers:
		case notification := <-p.session.ClientNotifications():
			message, _ = json.Marshal(notification) // of what was read from JSON, or is ours
		case <-beat:
		}
		if err := write(message); err != nil {
			return
		}
	}
}

func errorAnswer(id any, code int, message string) mcpsdk.JSONRPCMessage {
	return mcpsdk.NewJSONRPCError(mcpsdk.NewRequestId(id), code, message, nil)
}
