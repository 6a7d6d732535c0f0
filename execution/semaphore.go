package execution

import (
	"context"
	"sync"
)

// OwnerSemaphore bounds how many requests of one owner do the same expensive thing
// at once. A request over the bound waits for other requests of its owner only. It
// is safe for concurrent use.
type OwnerSemaphore struct {
	limit int

	mu     sync.Mutex
	owners map[Owner]*ownerSlots
}

// ownerSlots are the slots of one owner.
type ownerSlots struct {
	taken    chan struct{} // one element for each slot that is taken
	requests int           // that hold a slot or wait for one
}

// NewOwnerSemaphore returns an OwnerSemaphore with limit slots for each owner.
func NewOwnerSemaphore(limit int) *OwnerSemaphore {
	return &OwnerSemaphore{limit: limit, owners: make(map[Owner]*ownerSlots)}
}

// Acquire waits for a slot of the request's owner. The caller must call release. If
// ctx ends first, the error has code [Cancelled].
func (s *OwnerSemaphore) Acquire(ctx context.Context) (release func(), err error) {
	owner := OwnerOf(ctx)
	slots := s.join(owner)
	select {
	case slots.taken <- struct{}{}:
		return func() {
			<-slots.taken
			s.leave(owner)
		}, nil
	case <-ctx.Done():
		s.leave(owner)
		return nil, CancelledError(ctx)
	}
}

func (s *OwnerSemaphore) join(owner Owner) *ownerSlots {
	s.mu.Lock()
	defer s.mu.Unlock()
	slots := s.owners[owner]
	if slots == nil {
		slots = &ownerSlots{taken: make(chan struct{}, s.limit)}
		s.owners[owner] = slots
	}
	slots.requests++
	return slots
}

func (s *OwnerSemaphore) leave(owner Owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owners[owner].requests--; s.owners[owner].requests == 0 {
		delete(s.owners, owner)
	}
}
