package httpapi

import (
	"net"
	"net/http"
	"sync"
)

// unusedConns are connections on which no request has come yet. Shutdown of
// [http.Server] waits up to five seconds and more for each, which browsers and
// connection pools open ahead of requests; this closes them at once.
type unusedConns struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	done  bool // a connection that comes now is closed
}

// follow has the server tell of its connections.
func (u *unusedConns) follow(server *http.Server) {
	u.conns = make(map[net.Conn]struct{})
	server.ConnState = u.changed
	server.RegisterOnShutdown(u.close)
}

func (u *unusedConns) changed(conn net.Conn, state http.ConnState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(u.conns, conn)
	case u.done:
		_ = conn.Close()
	default:
		u.conns[conn] = struct{}{}
	}
}

func (u *unusedConns) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done = true
	for conn := range u.conns {
		_ = conn.Close()
	}
}
