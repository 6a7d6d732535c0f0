package httpapi

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// connectionBytes is the memory of a connection without a request: its buffers, or the
// part of a header that has arrived, of which each short line takes many times its text.
const connectionBytes = 64 << 10

// waitingConns are the connections without a request: none has arrived yet, or the last
// was answered. Requests are charged for their memory. Waiting connections are not, so
// their number is bounded instead.
//
// If there are too many, the oldest of the largest kind is closed. Those on which no request
// has arrived yet are a kind, and the idle ones of each owner are one. So clients that send half
// a header close no idle connection as long as there are more of them, and an owner closes none
// of an owner who has fewer.
//
// Shutdown of [http.Server] waits five seconds or more for a connection on which no
// request has arrived yet. Browsers and connection pools open such connections ahead of
// requests; this closes them at once.
type waitingConns struct {
	most int // zero means no bound

	mu      sync.Mutex
	open    map[net.Conn]*connection
	waiting *list.List // of *connection, the oldest first
	numbers map[connKind]int
	done    bool // new connections are closed
}

// connKind is a kind of waiting connections. The owner is "" as long as no request was accepted.
type connKind struct {
	fresh bool            // no request has arrived on them yet
	owner execution.Owner // of the last request
}

// connection is an open connection.
type connection struct {
	conn net.Conn
	// owner is that of the last request. Only the connection's own goroutine uses it, which with
	// HTTP/1 also serves the requests.
	owner execution.Owner
	kind  connKind
	place *list.Element // nil while there is a request
}

type connectionKey struct{}

// ownConnection records the owner of a request as the owner of its connection.
func ownConnection(ctx context.Context, owner execution.Owner) {
	if c, ok := ctx.Value(connectionKey{}).(*connection); ok {
		c.owner = owner
	}
}

// watch has the server report when a connection opens, waits, and ends.
func (w *waitingConns) watch(server *http.Server) {
	w.open, w.waiting = make(map[net.Conn]*connection), list.New()
	w.numbers = make(map[connKind]int)
	server.ConnContext = w.opened
	server.ConnState = w.changed
	server.RegisterOnShutdown(w.close)
}

func (w *waitingConns) opened(ctx context.Context, conn net.Conn) context.Context {
	c := &connection{conn: conn}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[conn] = c
	return context.WithValue(ctx, connectionKey{}, c)
}

func (w *waitingConns) changed(conn net.Conn, state http.ConnState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.open[conn]
	w.remove(c)
	switch state {
	case http.StateNew:
		if w.done {
			_ = conn.Close()
			return
		}
		w.add(c, connKind{fresh: true})
	case http.StateIdle:
		w.add(c, connKind{owner: c.owner})
	case http.StateActive:
	case http.StateClosed, http.StateHijacked:
		delete(w.open, conn)
	}
	if w.most > 0 && w.waiting.Len() > w.most {
		w.closeOldest()
	}
}

func (w *waitingConns) add(c *connection, kind connKind) {
	c.kind, c.place = kind, w.waiting.PushBack(c)
	w.numbers[kind]++
}

func (w *waitingConns) remove(c *connection) {
	if c.place == nil {
		return
	}
	w.waiting.Remove(c.place)
	c.place = nil
	if w.numbers[c.kind]--; w.numbers[c.kind] == 0 {
		delete(w.numbers, c.kind)
	}
}

// closeOldest closes the oldest connection of the largest kind. Of equal kinds it closes the
// oldest connection of all.
func (w *waitingConns) closeOldest() {
	most := 0
	for _, n := range w.numbers {
		most = max(most, n)
	}
	for e := w.waiting.Front(); e != nil; e = e.Next() {
		if c, ok := e.Value.(*connection); ok && w.numbers[c.kind] == most { // all are connections
			w.end(c)
			return
		}
	}
}

// end closes a waiting connection.
func (w *waitingConns) end(c *connection) {
	w.remove(c)
	_ = c.conn.Close()
}

func (w *waitingConns) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	for _, c := range w.open {
		if c.place != nil && c.kind.fresh {
			w.end(c)
		}
	}
}
