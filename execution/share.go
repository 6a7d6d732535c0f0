package execution

import "sync"

// HasRoom reports whether an owner that holds own of total, of limit in all, may take
// n more: own+n must be at most twice what is then left for others, plus two. A
// single owner gets at most two thirds, two owners get two fifths each, and so on,
// so that a new owner finds room unless limit is tiny. Without authentication there
// is one owner, "", which may take everything.
func HasRoom(owner Owner, own, total, limit, n int64) bool {
	left := limit - total - n
	return left >= 0 && (owner == "" || own+n <= 2*left+2)
}

// FairShare divides limit units between owners by the rule of [HasRoom]. It is safe
// for concurrent use.
type FairShare struct {
	limit int64

	mu    sync.Mutex
	total int64
	held  map[Owner]int64
}

// NewFairShare returns a FairShare of limit units.
func NewFairShare(limit int64) *FairShare {
	return &FairShare{limit: limit, held: make(map[Owner]int64)}
}

// TryAcquire reports whether owner may take n more units, and takes them. They must
// be released.
func (s *FairShare) TryAcquire(owner Owner, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !HasRoom(owner, s.held[owner], s.total, s.limit, n) {
		return false
	}
	s.total += n
	s.held[owner] += n
	return true
}

// Release returns n units that owner took.
func (s *FairShare) Release(owner Owner, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total -= n
	if s.held[owner] -= n; s.held[owner] == 0 {
		delete(s.held, owner)
	}
}

// room returns how many units are not taken.
func (s *FairShare) room() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit - s.total
}
