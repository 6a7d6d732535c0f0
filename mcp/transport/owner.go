package transport

import (
	"context"
	"net/http"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// A session of the protocol's belongs to the owner of the request that began it:
// its id ends with their name. The library knows no owners.

const (
	sessionIDHeader = "Mcp-Session-Id"
	// unknownSession is what the client of a session is told that is not there, or
	// not its own.
	unknownSession = "session not found"
)

// ofOwner has sessions of others be unknown.
func ofOwner(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ending := ownerEnding(r.Context())
		for _, id := range []string{r.Header.Get(sessionIDHeader), r.URL.Query().Get("sessionId")} {
			if id != "" && !strings.HasSuffix(id, ending) {
				http.Error(w, unknownSession, http.StatusNotFound)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// ownerEnding is what the ids of an owner's sessions end with: nothing, where
// nobody is asked who they are.
func ownerEnding(ctx context.Context) string {
	if owner := execution.OwnerOf(ctx); owner != "" {
		return "-of-" + string(owner)
	}
	return ""
}
