package transport

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
)

// errCancelled is the cause with which the context of a request ends that its client has cancelled.
// No answer is sent to such a request: its client no longer knows the id, and some clients close
// the connection then.
var errCancelled = errors.New("the client cancelled the request")

// requestKey names a request. Clients choose ids, so they are unique only within a protocol
// session. The number 1 and the string "1" are different ids.
type requestKey struct {
	session string
	id      any
}

// unanswered are the requests that have no answer yet, so that their clients can cancel them.
type unanswered struct {
	mu    sync.Mutex
	byKey map[requestKey]*request
}

// request is a request that has no answer yet.
type request struct {
	cancel    context.CancelCauseFunc
	cancelled chan struct{} // closed when the client cancels it
}

func newUnanswered() *unanswered { return &unanswered{byKey: make(map[requestKey]*request)} }

// add adds a request. It returns the context for it, and a function that must be called when the
// request is over.
func (u *unanswered) add(ctx context.Context, key requestKey) (context.Context, *request, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	r := &request{cancel, make(chan struct{})}
	u.mu.Lock()
	u.byKey[key] = r
	u.mu.Unlock()
	return ctx, r, func() { u.remove(key, r) }
}

func (u *unanswered) remove(key requestKey, r *request) {
	r.cancel(nil)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byKey[key] == r {
		delete(u.byKey, key)
	}
}

// cancel cancels the request that a notification of a protocol session's client names, whether it
// runs or waits. It ignores one that is unknown or over.
func (u *unanswered) cancel(session string, notification json.RawMessage) {
	var cancelled struct {
		Params struct {
			RequestID json.RawMessage `json:"requestId"`
		} `json:"params"`
	}
	if json.Unmarshal(notification, &cancelled) != nil {
		return
	}
	id, valid := message{id: cancelled.Params.RequestID}.decodeID()
	if !valid {
		return
	}
	key := requestKey{session, id}
	u.mu.Lock()
	defer u.mu.Unlock()
	if r := u.byKey[key]; r != nil {
		delete(u.byKey, key)
		close(r.cancelled)
		r.cancel(errCancelled)
	}
}

// isCancelled reports whether the client has cancelled the request.
func (r *request) isCancelled() bool {
	select {
	case <-r.cancelled:
		return true
	default:
		return false
	}
}

// isCancelled reports whether the request of a context was cancelled by its client.
func isCancelled(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errCancelled) }

// isCancellation reports whether a message cancels a request.
func (m message) isCancellation() bool {
	return m.method == string(mcpsdk.MethodNotificationCancelled) && !m.hasID()
}
