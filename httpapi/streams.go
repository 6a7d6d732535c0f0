package httpapi

import "net/http"

const (
	// maxStreamBody bounds what a client sends to open a stream that lasts as long as
	// it, in bytes.
	maxStreamBody = 64 << 10
	ssePath       = "/sse"
)

// listensToMCP reports whether a request opens a stream of what the MCP door may have
// to report. The header is part of the protocol: the door refuses one that is not
// true.
func listensToMCP(r *http.Request) bool {
	return isGet(r) || r.Method == http.MethodPost && r.Header.Get("Mcp-Method") == "subscriptions/listen"
}

func isGet(r *http.Request) bool { return r.Method == http.MethodGet }
