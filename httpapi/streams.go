package httpapi

import "net/http"

const (
	// maxStreamBody bounds what a client sends to open a stream that lasts as long as
	// it, in bytes.
	maxStreamBody = 64 << 10
	ssePath       = "/sse"
)

// isStream says whether a request opens a stream of what a door may have to tell,
// which lasts as long as its client. The header is part of the protocol: a door
// refuses one that is not true.
func isStream(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet:
		return r.URL.Path == mcpPath || r.URL.Path == ssePath
	case http.MethodPost:
		return r.URL.Path == mcpPath && r.Header.Get("Mcp-Method") == "subscriptions/listen"
	}
	return false
}
