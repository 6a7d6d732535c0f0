package kubernetes

import (
	"context"
	"errors"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// takeOver makes this server the holder of a session, unless it is already. A connection ends what
// another server has in progress there. So a session is not taken from a server that is alive,
// unless it has announced no address at which it could be asked.
func (b *Backend) takeOver(ctx context.Context, p *pod) (*pod, error) {
	const attempts = 3 // each fails only if another server has changed the holder meanwhile
	for range attempts {
		if p.holder == b.id {
			return p, nil
		}
		if p.holder != "" && !b.leases.mute(p.holder) && b.leases.over(p.holder) < 0 {
			break
		}
		taken, err := b.patch(ctx, p, p.patch().
			test(label(labelHolder), p.holder).
			test(label(labelSession), p.session.ID).
			set(label(labelHolder), b.id))
		if !errors.Is(err, errLost) {
			return taken, err
		}
		now := b.index.session(p.session.ID)
		if now == nil {
			return nil, execution.SessionNotFound(p.session.ID)
		}
		p = now
	}
	return nil, &execution.HeldError{Session: p.session.ID, Holder: p.holder, Peer: b.leases.peer(p.holder)}
}

// Holder implements [execution.Holders].
func (b *Backend) Holder(id string) execution.Peer {
	p := b.index.session(id)
	if p == nil {
		return execution.Peer{}
	}
	return b.Peer(p.holder)
}

// Peer implements [execution.Holders].
func (b *Backend) Peer(name string) execution.Peer {
	address := b.leases.peer(name)
	if name == b.id || address == "" || b.leases.over(name) >= 0 {
		return execution.Peer{}
	}
	return execution.Peer{Name: name, Address: address}
}

// Release implements [execution.Holders].
func (b *Backend) Release(ctx context.Context, id string) error {
	p, err := b.find(ctx, id)
	if err != nil || p.holder != b.id {
		return err
	}
	_, err = b.patch(ctx, p, p.patch().
		test(label(labelHolder), b.id).
		test(label(labelSession), id).
		set(label(labelHolder), ""))
	if errors.Is(err, errLost) {
		return nil // another server has it, or it is gone
	}
	return err
}
