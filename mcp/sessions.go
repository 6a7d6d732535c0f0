package mcp

import (
	"net/http"

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
	mcpserver.StatelessGeneratingSessionIdManager
	ended *lru.Cache[string, struct{}]
}

func newSessions() *sessions {
	ended, err := lru.New[string, struct{}](rememberedEnds)
	if err != nil {
		panic(err) // of a size below one alone
	}
	return &sessions{ended: ended}
}

// ResolveSessionIdManager has requests remember what ends. Without a request
// it is the library that forgets an idle session, which may come back.
func (s *sessions) ResolveSessionIdManager(r *http.Request) mcpserver.SessionIdManager { //nolint:revive // the library's name
	if r == nil {
		return &s.StatelessGeneratingSessionIdManager
	}
	return s
}

// Validate says whether a session has ended.
func (s *sessions) Validate(id string) (ended bool, err error) {
	if s.ended.Contains(id) {
		return true, nil
	}
	return s.StatelessGeneratingSessionIdManager.Validate(id)
}

// Terminate ends a session.
func (s *sessions) Terminate(id string) (notAllowed bool, err error) {
	if _, err := s.Validate(id); err != nil {
		return false, nil //nolint:nilerr // what is no session has no end
	}
	s.ended.Add(id, struct{}{})
	return false, nil
}
