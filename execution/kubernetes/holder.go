package kubernetes

import (
	"context"
	"errors"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// takeOver makes this server the holder of a session, unless it is already. A connection ends what
// another server has in progress there. So a session is not taken from a server that is alive.
func (b *Backend) takeOver(ctx context.Context, p *pod) (*pod, error) {
	const attempts = 3 // each fails only if another server has changed the holder meanwhile
	for range attempts {
		if p.holder == b.id {
			return p, nil
		}
		if b.leases.over(p.holder) < 0 {
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
