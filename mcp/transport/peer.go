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

const (
	// otherRequests bounds the requests other than tool calls that are answered at once:
	// each may hold a file.
	otherRequests = 4

	// codeBusy is for a request that the client may send again later. JSON-RPC leaves such
	// codes to servers.
	codeBusy = -32000
)

// peer is a client with one connection: stdio, or a stream of the legacy HTTP transport. The
// library answers its messages. The library's own transports of these kinds (v1.2.1) are not
// used because they hold any number of answers for a client that does not read, do not end
// before it reads, cannot cancel a call that waits for others, and know no batches.
type peer struct {
	opts    Options
	session *mcpserver.InProcessSession
	// calls and others bound the tool calls, and the other requests, that are in progress:
	// from their start until their answer is being written.
	calls, others chan struct{}
	answers       chan []byte
	closed        chan struct{} // closed when the client reads no more
	close         func()        // closes it
	requests      sync.WaitGroup
	unanswered    *unanswered
}

func (t *Transports) newPeer(session string) *peer {
	closed := make(chan struct{})
	return &peer{
		opts: t.opts, session: mcpserver.NewInProcessSession(session, nil),
		calls: make(chan struct{}, t.opts.Parallel), others: make(chan struct{}, otherRequests),
		answers: make(chan []byte), closed: closed, close: sync.OnceFunc(func() { close(closed) }), unanswered: newUnanswered(),
	}
}

// register makes the protocol session known to the library. It returns the context for the
// client's requests.
func (p *peer) register(ctx context.Context) (context.Context, error) {
	if err := p.opts.Server.RegisterSession(ctx, p.session); err != nil {
		return nil, err
	}
	return p.opts.Server.WithContext(ctx, p.session), nil
}

func (p *peer) unregister(ctx context.Context) {
	p.opts.Server.UnregisterSession(ctx, p.session.SessionID())
}

// receive handles a message or a batch. Each message that is answered shares the account of
// ctx until its answer is being written.
func (p *peer) receive(ctx context.Context, m message) {
	account := execution.AccountOf(ctx)
	account.Share()
	if !m.valid {
		p.sendLater(errorAnswer(nil, mcpsdk.PARSE_ERROR, "Parse error"), account.Close)
		return
	}
	if !m.isBatch() {
		p.dispatch(ctx, m, account.Close)
		return
	}
	defer account.Close()
	batch, ok := m.batch()
	if !ok {
		account.Share()
		p.sendLater(errorAnswer(nil, mcpsdk.INVALID_REQUEST, batchFault), account.Close)
	}
	for _, m := range batch {
		account.Share()
		p.dispatch(ctx, m, account.Close)
	}
}

// dispatch handles one message. It calls done when the answer is being written, or when there
// is none.
func (p *peer) dispatch(ctx context.Context, m message, done func()) {
	refusal := m.refusal()
	id, valid := m.decodeID()
	switch {
	case m.isCancellation():
		p.unanswered.cancel("", m.raw)
		done()
	case refusal != nil:
		p.sendLater(refusal, done)
	case m.method != "" && valid:
		p.start(ctx, m, id, done)
	case m.hasID() && !valid:
		p.sendLater(errorAnswer(nil, mcpsdk.INVALID_REQUEST, "The id must be a string or a number"), done)
	default:
		p.sendLater(p.opts.Server.HandleMessage(ctx, m.raw), done)
	}
}

// start answers a request when one of its slots is free, unless the client cancels it.
func (p *peer) start(ctx context.Context, m message, id any, done func()) {
	ctx, r, over := p.unanswered.add(ctx, requestKey{id: id})
	p.requests.Go(func() {
		defer done()
		defer over()
		slots := p.slotsFor(m.method)
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			p.sendUnlessCancelled(p.answer(ctx, id, m.raw), r)
		case <-r.cancelled:
		case <-p.closed:
		}
	})
}

// slotsFor returns the slots that a method's requests share. A subscription lasts as long as
// its client likes and holds nothing, so it is not bounded.
func (p *peer) slotsFor(method string) chan struct{} {
	switch method {
	case string(mcpsdk.MethodToolsCall):
		return p.calls
	case string(mcpsdk.MethodSubscriptionsListen):
		return make(chan struct{}, 1)
	}
	return p.others
}

func (p *peer) answer(ctx context.Context, id any, raw json.RawMessage) (answer mcpsdk.JSONRPCMessage) {
	defer func() {
		if cause := recover(); cause != nil {
			p.opts.Log.ErrorContext(ctx, "a request failed", "error", fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
			answer = errorAnswer(id, mcpsdk.INTERNAL_ERROR, "Internal error")
		}
	}()
	defer forgetClient(p.session) // a request that is rejected early may store client data too
	return p.opts.Server.HandleMessage(ctx, raw)
}

// send waits until a message is being written, or the client reads no more. It ignores nil.
func (p *peer) send(answer mcpsdk.JSONRPCMessage) { p.sendUnlessCancelled(answer, new(request)) }

// sendUnlessCancelled is [peer.send] for the answer to a request. It sends nothing if the client
// cancels the request first.
func (p *peer) sendUnlessCancelled(answer mcpsdk.JSONRPCMessage, r *request) {
	if answer == nil || r.isCancelled() {
		return
	}
	data, err := json.Marshal(answer)
	if err != nil {
		p.opts.Log.Error("encoding an answer failed", "error", err)
		return
	}
	select {
	case p.answers <- data:
	case <-r.cancelled:
	case <-p.closed:
	}
}

// sendLater sends a message in the background.
func (p *peer) sendLater(answer mcpsdk.JSONRPCMessage, done func()) {
	if answer == nil {
		done()
		return
	}
	p.requests.Go(func() {
		defer done()
		p.send(answer)
	})
}

// sendBeforeReading sends a message and waits, so that a client that does not read cannot make
// any number of them wait.
func (p *peer) sendBeforeReading(ctx context.Context, answer mcpsdk.JSONRPCMessage) {
	sent := make(chan struct{})
	p.sendLater(answer, func() { close(sent) })
	select {
	case <-sent:
	case <-ctx.Done():
	}
}

// writeAll writes messages until the client reads no more, and nil at each beat. The library
// queues notifications apart from answers, so those that are queued go before each answer.
func (p *peer) writeAll(write func(message []byte) error, beat <-chan time.Time) {
	defer p.close()
	notifications := p.session.ClientNotifications()
	encode := func(notification mcpsdk.JSONRPCNotification) []byte {
		data, _ := json.Marshal(notification) // it is made of what was decoded from JSON, or is ours
		return data
	}
	for {
		var message []byte
		select {
		case <-p.closed:
			return
		case message = <-p.answers:
			for len(notifications) > 0 {
				if write(encode(<-notifications)) != nil {
					return
				}
			}
		case notification := <-notifications:
			message = encode(notification)
		case <-beat:
		}
		if write(message) != nil {
			return
		}
	}
}
