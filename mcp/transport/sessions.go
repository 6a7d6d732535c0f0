package transport

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// rememberedEnds bounds how many ended protocol sessions are remembered.
	rememberedEnds = 10_000
	// maxKept bounds how many protocol sessions the library (v1.2.1) keeps: ids, queues and
	// capabilities, 10 kB each, whatever their clients declare ([ForgetClients]). It would
	// keep any number, each for an hour after its latest request.
	maxKept = 1000
)

// sessions are the protocol sessions of the streamable transport. A session that its client
// has ended is gone: later requests get 404, as the specification requires. The library
// (v1.2.1) accepts them, or else rejects all sessions after a restart. Any other session counts
// as alive, so that clients do not notice that the server has restarted or has forgotten it.
type sessions struct {
	instance   string
	ended      *lru.Cache[string, struct{}]
	kept       *keptSessions
	unanswered *unanswered
}

func newSessions(instance string) *sessions {
	ended, err := lru.New[string, struct{}](rememberedEnds)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &sessions{instance: instance, ended: ended, kept: newKeptSessions(), unanswered: newUnanswered()}
}

// ResolveSessionIdManager returns the protocol sessions of a request's owner. Without a request,
// the library is forgetting an idle session, which may be used again; so may one that we make
// the library forget.
func (s *sessions) ResolveSessionIdManager(r *http.Request) mcpserver.SessionIdManager { //nolint:revive // the library's name
	if r == nil || r.Context().Value(forgetKey{}) != nil {
		return new(mcpserver.StatelessGeneratingSessionIdManager)
	}
	return &ownSessions{sessions: s, suffix: ownerSuffix(r.Context())}
}

// ownSessions are the protocol sessions of an owner. Their ids are the library's, followed by
// the server's name, if there are several, and the owner's.
type ownSessions struct {
	*sessions
	mcpserver.StatelessGeneratingSessionIdManager

	suffix string
}

// Generate returns the id of a new session.
func (o *ownSessions) Generate() string {
	return o.StatelessGeneratingSessionIdManager.Generate() + instanceSuffix(o.instance) + o.suffix
}

// Validate reports whether a session has ended. One that another server has begun counts as alive
// too: that server has ended, or the request would have been passed on to it.
func (o *ownSessions) Validate(id string) (ended bool, err error) {
	plain, own := strings.CutSuffix(id, o.suffix)
	switch {
	case !own:
		return false, errors.New("invalid session id")
	case o.ended.Contains(id):
		return true, nil
	}
	if o.instance != "" {
		plain, _, _ = strings.Cut(plain, instanceMark)
	}
	return o.StatelessGeneratingSessionIdManager.Validate(plain)
}

// Terminate ends a session.
func (o *ownSessions) Terminate(id string) (notAllowed bool, err error) {
	if _, err := o.Validate(id); err != nil {
		return false, nil //nolint:nilerr // an id that is not valid has nothing to end
	}
	o.ended.Add(id, struct{}{})
	return false, nil
}

// ForgetClients makes the library (v1.2.1) forget what clients declare of themselves, in the
// handshake and, since 2026-07-28, in each request. The library keeps it for as long as the
// protocol session lasts, whatever its size.
func ForgetClients(hooks *mcpserver.Hooks) {
	hooks.AddAfterInitialize(func(ctx context.Context, _ any, _ *mcpsdk.InitializeRequest, _ *mcpsdk.InitializeResult) {
		forgetClient(mcpserver.ClientSessionFromContext(ctx))
	})
	hooks.AddBeforeAny(func(ctx context.Context, _ any, _ mcpsdk.MCPMethod, _ any) {
		forgetClient(mcpserver.ClientSessionFromContext(ctx))
	})
}

// forgetClient clears what a session keeps of its client, except the capabilities that the
// protocol defines.
func forgetClient(session mcpserver.ClientSession) {
	if s, ok := session.(mcpserver.SessionWithClientInfo); ok {
		capabilities := s.GetClientCapabilities()
		capabilities.Experimental, capabilities.Extensions = nil, nil
		s.SetClientInfo(mcpsdk.Implementation{})
		s.SetClientCapabilities(capabilities)
	}
}

// keptSessions are the protocol sessions that the library keeps, with their owners.
type keptSessions struct {
	mu     sync.Mutex
	latest *simplelru.LRU[string, execution.Owner]
	of     map[execution.Owner]int64 // how many
}

func newKeptSessions() *keptSessions {
	latest, err := simplelru.NewLRU[string, execution.Owner](maxKept, nil)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &keptSessions{latest: latest, of: make(map[execution.Owner]int64)}
}

// use records that a session is used. It returns the session that must go to make room, or "":
// one of the same owner if that owner has a fair share.
func (k *keptSessions) use(id string, owner execution.Owner) (over string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, known := k.latest.Get(id); known {
		return ""
	}
	if !execution.HasRoom(owner, k.of[owner], int64(k.latest.Len()), maxKept, 1) {
		over = k.oldestLocked(owner)
		holder, _ := k.latest.Peek(over)
		k.latest.Remove(over)
		if k.of[holder]--; k.of[holder] == 0 {
			delete(k.of, holder)
		}
	}
	k.latest.Add(id, owner)
	k.of[owner]++
	return over
}

// oldestLocked returns the session of an owner that was unused for the longest time, or that of
// any owner if this one has none.
func (k *keptSessions) oldestLocked(owner execution.Owner) string {
	all := k.latest.Keys()
	for _, id := range all {
		if holder, _ := k.latest.Peek(id); holder == owner {
			return id
		}
	}
	return all[0]
}

type forgetKey struct{}

// keeping bounds how many protocol sessions the library keeps. The client of a session that
// has to go does not notice: see [sessions].
func (s *sessions) keeping(library http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given := r.Header.Get(sessionIDHeader)
		s.keep(r, given, library)
		library.ServeHTTP(w, r)
		if begun := w.Header().Get(sessionIDHeader); begun != given {
			s.keep(r, begun, library)
		}
	})
}

// keep records the use of a session, and makes the library forget the one that must go.
func (s *sessions) keep(r *http.Request, id string, library http.Handler) {
	if _, err := s.ResolveSessionIdManager(r).Validate(id); err != nil {
		return
	}
	over := s.kept.use(id, execution.OwnerOf(r.Context()))
	if over == "" {
		return
	}
	r = r.Clone(context.WithValue(context.WithoutCancel(r.Context()), forgetKey{}, true))
	r.Method, r.Body, r.Header = http.MethodDelete, http.NoBody, http.Header{sessionIDHeader: {over}}
	library.ServeHTTP(discarding{}, r)
}

// discarding drops an answer.
type discarding struct{}

func (discarding) Header() http.Header            { return make(http.Header) }
func (discarding) WriteHeader(int)                {}
func (discarding) Write(data []byte) (int, error) { return len(data), nil }
