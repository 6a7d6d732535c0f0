package execution

import "context"

// Peer is another server that is alive and shares its sessions with this one. The zero Peer is
// none.
type Peer struct {
	// Name is the server's name, as its backend gave it.
	Name string
	// Address is the host and port at which it answers other servers.
	Address string
}

// Holders is a [SessionBackend] whose sessions several servers share. Each session has a holder,
// the one server that connects to it: a second connection would end what the first has in
// progress. Attach makes this server the holder, and fails with a [HeldError] while another one
// that is alive and has an address is.
type Holders interface {
	// Holder returns the other server that holds a session, if it is alive. It makes no request, so
	// that what it returns may be out of date, and nothing for a session that has just begun.
	Holder(id string) Peer
	// Peer returns another server by its name, if it is alive.
	Peer(name string) Peer
	// Release ends this server's hold of a session, so that other servers can attach to it. It does nothing if
	// this server does not hold it.
	Release(ctx context.Context, id string) error
}
