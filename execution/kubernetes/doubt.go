package kubernetes

import (
	"context"
	"errors"
	"maps"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// doubt notes that the link to a session has ended from the other end, as it does when another
// server connects. This server may be the last to learn that, where it was stopped or cut off from
// the apiserver for a while. With another connection it would end the other server's calls.
func (b *Backend) doubt(p *pod) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.doubted, func(uid string, p *pod) bool { return b.index.get(p.name, uid) == nil })
	b.doubted[p.uid] = p
}

// confirm returns a session's pod as the apiserver has it, if this server may have lost it.
func (b *Backend) confirm(ctx context.Context, p *pod) (*pod, error) {
	b.mu.Lock()
	_, doubted := b.doubted[p.uid]
	b.mu.Unlock()
	if !doubted {
		return p, nil
	}
	now, err := b.look(ctx, p)
	if errors.Is(err, errLost) {
		return nil, execution.SessionNotFound(p.session.ID)
	}
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.doubted, p.uid)
	return now, nil
}
