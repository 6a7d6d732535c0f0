package httpapi

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// connectionBytes is what a connection takes on which there is no request: its
// buffers, or what has come of a header.
const connectionBytes = 32 << 10

// waitingConns are the connections on which there is no request: none has come yet,
// or the last was answered. Requests are charged for the memory that they take;
// these are bounded in number instead, since nobody knows whose they are. One more
// has the one closed that has waited the longest.
//
// Shutdown of [http.Server] waits up to five seconds and more for each on which no
// request has come yet, which browsers and connection pools open ahead of requests;
// this closes them at once.
type waitingConns struct {
	most int // zero is any number

	mu    sync.Mutex
	order *list.List // of waiting, the longest first
	known map[net.Conn]*list.Element
	done  bool // a connection that comes now is closed
}

type waiting struct {
	conn net.Conn
	used bool // a request has come on it before
}

// follow has the server report its connections.
func (c *waitingConns) follow(server *http.Server) {
	c.order, c.known = list.New(), make(map[net.Conn]*list.Element)
	server.ConnState = c.changed
	server.RegisterOnShutdown(c.close)
}

func (c *waitingConns) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.known[conn]; ok {
		c.order.Remove(element)
		delete(c.known, conn)
	}
	switch {
	case state != http.StateNew && state != http.StateIdle:
	case c.done && state == http.StateNew:
		_ = conn.Close()
	default:
		c.known[conn] = c.order.PushBack(waiting{conn, state == http.StateIdle})
		if c.most > 0 && c.order.Len() > c.most {
			c.closeLocked(c.order.Front())
		}
	}
}

func (c *waitingConns) closeLocked(element *list.Element) {
	if w, ok := c.order.Remove(element).(waiting); ok { // all are
		delete(c.known, w.conn)
		_ = w.conn.Close()
	}
}

func (c *waitingConns) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = true
	for element := c.order.Front(); element != nil; {
		next := element.Next()
		if w, ok := element.Value.(waiting); ok && !w.used {
			c.closeLocked(element)
		}
		element = next
	}
}
