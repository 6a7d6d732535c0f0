package mcp

import (
	"errors"
	"net/http"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// rememberedEnds is how many sessions that have ended are remembered.
const rememberedEnds = 10_000

// sessions are those of the streamable transport. One that its client has
// ended is gone: the client gets 404, as the specification wants, which the
// library's own (v1.2.1) do not do. Any other is taken to be alive, so that no
// client notices that the server has restarted, or has forgotten it meanwhile.
type sessions struct {
	ended *lru.Cache[string, struct{}]
}

func newSessions() *sessions {
	ended, err := lru.New[string, struct{}](rememberedEnds)
	if err != nil {
		panic(err) // of a size below one alone
	}
	return &sessions{ended: ended}
}

// ResolveSessionIdManager gives each request the sessions of its owner. Without
// a request it is the library that forgets an idle session, which may come back.
func (s *sessions) ResolveSessionIdManager(r *http.Request) mcpserver.SessionIdManager { //nolint:revive // the library's name
	if r == nil {
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
