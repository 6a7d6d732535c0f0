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

// rememberedEnds is how many sessions that have ended are remembered.
const rememberedEnds = 10_000

// sessions are those of the streamable transport. One that its client has
// ended is gone: the client gets 404, as the specification wants, which the
// library's own (v1.2.1) do not do. Any other is taken to be alive, so that no
// client notices that the server has restarted, or has forgotten it meanwhile.
type sessions struct {
	ended *lru.Cache[string, struct{}]
	kept  *keptSessions
}

func newSessions() *sessions {
	ended, err := lru.New[string, struct{}](rememberedEnds)
	if err != nil {
		panic(err) // of a size below one alone
	}
	return &sessions{ended: ended, kept: newKeptSessions()}
}

// ResolveSessionIdManager gives each request the sessions of its owner. Without
// a request it is the library that forgets an idle session, which may come back,
// as one may that we have it forget.
func (s *sessions) ResolveSessionIdManager(r *http.Request) mcpserver.SessionIdManager { //nolint:revive // the library's name
	if r == nil || r.Context().Value(forgetKey{}) != nil {
		return new(mcpserver.StatelessGeneratingSessionIdManager)
	}
	return &ownSessions{sessions: s, ending: ownerEnding(r.Context())}
}

// ownSessions are the sessions of an owner. Their ids are the library's own, with
// the owner's name behind.
type ownSessions struct {
	*sessions
	mcpserver.StatelessGeneratingSessionIdManager

	ending string
}

// Generate makes the id of a new session.
func (o *ownSessions) Generate() string {
	return o.StatelessGeneratingSessionIdManager.Generate() + o.ending
}

// Validate says whether a session has ended.
func (o *ownSessions) Validate(id string) (ended bool, err error) {
	plain, own := strings.CutSuffix(id, o.ending)
	switch {
	case !own:
		return false, errors.New("invalid session id")
	case o.ended.Contains(id):
		return true, nil
	}
	return o.StatelessGeneratingSessionIdManager.Validate(plain)
}

// Terminate ends a session.
func (o *ownSessions) Terminate(id string) (notAllowed bool, err error) {
	if _, err := o.Validate(id); err != nil {
		return false, nil //nolint:nilerr // what is no session has no end
	}
	o.ended.Add(id, struct{}{})
	return false, nil
}

// ForgetClients has the library (v1.2.1) keep nothing of what a client says of
// itself, which may be of any size, for as long as its session lasts: neither from
// the handshake nor, since 2026-07-28, from each request.
func ForgetClients(hooks *mcpserver.Hooks) {
	hooks.AddAfterInitialize(func(ctx context.Context, _ any, _ *mcpsdk.InitializeRequest, _ *mcpsdk.InitializeResult) {
		forgetClient(mcpserver.ClientSessionFromContext(ctx))
	})
	hooks.AddBeforeAny(func(ctx context.Context, _ any, _ mcpsdk.MCPMethod, _ any) {
		forgetClient(mcpserver.ClientSessionFromContext(ctx))
	})
}

// forgetClient empties what a session keeps of its client, but for the capabilities
// that are the protocol's own.
func forgetClient(session mcpserver.ClientSession) {
	if s, ok := session.(mcpserver.SessionWithClientInfo); ok {
		able := s.GetClientCapabilities()
		able.Experimental, able.Extensions = nil, nil
		s.SetClientInfo(mcpsdk.Implementation{})
		s.SetClientCapabilities(able)
	}
}

// maxKept is how many sessions the library (v1.2.1) may keep something of: ids,
// queues and capabilities, 10 kB each, whatever their clients say ([ForgetClients]).
// It would keep any number, each for an hour after its latest request.
const maxKept = 1000

// keptSessions are those that the library keeps something of, with their owners.
type keptSessions struct {
	mu     sync.Mutex
	latest *simplelru.LRU[string, execution.Owner]
	of     map[execution.Owner]int64
}

func newKeptSessions() *keptSessions {
	latest, err := simplelru.NewLRU[string, execution.Owner](maxKept, nil)
	if err != nil {
		panic(err) // of a size below one alone
	}
	return &keptSessions{latest: latest, of: make(map[execution.Owner]int64)}
}

// use notes that a session is used, and gives the one that is to go for it, if one
// is: the owner's own, where they have their share.
func (k *keptSessions) use(id string, owner execution.Owner) (over string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, known := k.latest.Get(id); known {
		return ""
	}
	if !execution.HasRoom(owner, k.of[owner], int64(k.latest.Len()), maxKept, 1) {
		over = k.oldestLocked(owner)
		theirs, _ := k.latest.Peek(over)
		k.latest.Remove(over)
		if k.of[theirs]--; k.of[theirs] == 0 {
			delete(k.of, theirs)
		}
	}
	k.latest.Add(id, owner)
	k.of[owner]++
	return over
}

// oldestLocked gives the session of an owner's that was used the longest ago, or
// of anybody's if they have none.
func (k *keptSessions) oldestLocked(owner execution.Owner) string {
	all := k.latest.Keys()
	for _, id := range all {
		if theirs, _ := k.latest.Peek(id); theirs == owner {
			return id
		}
	}
	return all[0]
}

type forgetKey struct{}

// keeping bounds what the library keeps of sessions. The client of one that has
// to go does not notice: see [sessions].
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

// discarding is an answer that nobody waits for.
type discarding struct{}

func (discarding) Header() http.Header            { return make(http.Header) }
func (discarding) WriteHeader(int)                {}
func (discarding) Write(data []byte) (int, error) { return len(data), nil }
