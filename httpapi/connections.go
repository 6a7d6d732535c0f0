package httpapi

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// connectionBytes is what a connection takes on which there is no request: its
// buffers, or what has come of a header, of which each short line takes many times its
// text.
const connectionBytes = 64 << 10

// waitingConns are the connections on which there is no request: none has come yet,
// or the last was answered. Requests are charged for the memory that they take;
// these are bounded in number instead, since nobody knows whose they are. Where there
// are too many, the one that has waited the longest is closed, of the kind that there
// are more of: many strangers with half a header close no connection of a client that
// waits between two requests, and many idle ones none of a client that has just come.
//
// Shutdown of [http.Server] waits up to five seconds and more for each on which no
// request has come yet, which browsers and connection pools open ahead of requests;
// this closes them at once.
type waitingConns struct {
	most int // zero is any number

	mu    sync.Mutex
	fresh *connList // no request has come on them yet
	idle  *connList
	done  bool // a connection that comes now is closed
}

// follow has the server report its connections.
func (c *waitingConns) follow(server *http.Server) {
	c.fresh, c.idle = newConnList(), newConnList()
	server.ConnState = c.changed
	server.RegisterOnShutdown(c.close)
}

func (c *waitingConns) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh.remove(conn)
	c.idle.remove(conn)
	switch {
	case state == http.StateNew && c.done:
		_ = conn.Close()
		return
	case state == http.StateNew:
		c.fresh.add(conn)
	case state == http.StateIdle:
		c.idle.add(conn)
	}
	switch fresh, idle := c.fresh.len(), c.idle.len(); {
	case c.most == 0 || fresh+idle <= c.most:
	case fresh > idle:
		c.fresh.closeOldest()
	default:
		c.idle.closeOldest()
	}
}

func (c *waitingConns) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = true
	for c.fresh.len() > 0 {
		c.fresh.closeOldest()
	}
}

// connList is connections in the order in which they came.
type connList struct {
	order *list.List // of net.Conn
	known map[net.Conn]*list.Element
}

func newConnList() *connList {
	return &connList{order: list.New(), known: make(map[net.Conn]*list.Element)}
}

func (l *connList) len() int { return l.order.Len() }

func (l *connList) add(conn net.Conn) { l.known[conn] = l.order.PushBack(conn) }

func (l *connList) remove(conn net.Conn) {
	if element, ok := l.known[conn]; ok {
		l.order.Remove(element)
		delete(l.known, conn)
	}
}

func (l *connList) closeOldest() {
	if conn, ok := l.order.Front().Value.(net.Conn); ok { // all are
		l.remove(conn)
		_ = conn.Close()
	}
}
