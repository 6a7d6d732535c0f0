package httpapi

import "net/http"

const (
	// maxStreamBody bounds the body of a request that opens a stream, in bytes.
	maxStreamBody = 64 << 10
	ssePath       = "/sse"
	messagePath   = "/message"
)

// listensToMCP reports whether a request opens a stream of MCP notifications. The header
// is part of the protocol: the door refuses a request whose body does not match it.
func listensToMCP(r *http.Request) bool {
	return isGet(r) || r.Method == http.MethodPost && r.Header.Get("Mcp-Method") == "subscriptions/listen"
}

func isGet(r *http.Request) bool { return r.Method == http.MethodGet }
