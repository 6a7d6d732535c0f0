package transport

import (
	"context"
	"net/http"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// A protocol session belongs to the owner of the request that began it: its id ends with the
// owner's name. The library knows no owners.

const (
	sessionIDHeader = "Mcp-Session-Id"
	// unknownSession answers requests for a protocol session that does not exist, or that
	// belongs to another owner.
	unknownSession = "session not found"
)

// requireOwnSession answers 404 for protocol sessions of other owners.
func requireOwnSession(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		suffix := ownerSuffix(r.Context())
		for _, id := range []string{r.Header.Get(sessionIDHeader), r.URL.Query().Get("sessionId")} {
			if id != "" && !strings.HasSuffix(id, suffix) {
				http.Error(w, unknownSession, http.StatusNotFound)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// ownerSuffix returns the end of the ids of an owner's protocol sessions: nothing if the server
// has no keys.
func ownerSuffix(ctx context.Context) string {
	if owner := execution.OwnerOf(ctx); owner != "" {
		return "-of-" + string(owner)
	}
	return ""
}
