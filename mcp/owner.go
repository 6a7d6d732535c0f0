package mcp

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// A session of the protocol's belongs to the owner of the request that began it:
// its id ends with their name. The library knows no owners.

const sessionIDHeader = "Mcp-Session-Id"

// ofOwner has sessions of others be unknown.
func ofOwner(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ending := ownerEnding(r.Context())
		for _, id := range []string{r.Header.Get(sessionIDHeader), r.URL.Query().Get("sessionId")} {
			if id != "" && !strings.HasSuffix(id, ending) {
				http.Error(w, "Invalid session ID", http.StatusNotFound)
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

// newSSEID makes the id of a session of the SSE transport.
func newSSEID(ctx context.Context, _ *http.Request) (string, error) {
	return rand.Text() + ownerEnding(ctx), nil
}
