package httpapi

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// connectionBytes is the memory of a connection without a request: its buffers, or the
// part of a header that has arrived, of which each short line takes many times its text.
const connectionBytes = 64 << 10

// waitingConns are the connections without a request: none has arrived yet, or the last
// was answered. Requests are charged for their memory. Waiting connections have no owner
// to charge, so their number is bounded instead.
//
// If there are too many, the one that has waited the longest is closed, of the kind that
// there are more of. So many clients that send half a header close no connection of a
// client between two requests, and many idle connections close none that is new.
//
// Shutdown of [http.Server] waits five seconds or more for a connection on which no
// request has arrived yet. Browsers and connection pools open such connections ahead of
// requests; this closes them at once.
type waitingConns struct {
	most int // zero means no bound

	mu    sync.Mutex
	fresh *connList // no request has arrived on them yet
	idle  *connList
	done  bool // new connections are closed
}

// watch makes the server report the states of its connections.
func (c *waitingConns) watch(server *http.Server) {
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

// connList is a list of connections, the oldest first.
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
