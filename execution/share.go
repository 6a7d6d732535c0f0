package execution

import "sync"

// HasRoom reports whether an owner, who holds own of the total that is held of
// most, may hold n more: at most twice as much as is then left for others, and
// two. One alone gets two thirds, two get two fifths each, and so on: whoever
// comes next finds room, but for the smallest bounds. Where nobody is asked who
// they are, all is for everybody.
func HasRoom(owner Owner, own, total, most, n int64) bool {
	left := most - total - n
	return left >= 0 && (owner == "" || own+n <= 2*left+2)
}

// Share bounds how much requests hold of something, in all and of each owner, as
// [HasRoom] says. It is safe for concurrent use.
type Share struct {
	most int64

	mu    sync.Mutex
	total int64
	of    map[Owner]int64
}

// NewShare makes a Share of so much.
func NewShare(most int64) *Share { return &Share{most: most, of: make(map[Owner]int64)} }

// Enter has an owner hold n more, and reports whether they may. What was entered
// must leave.
func (s *Share) Enter(owner Owner, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !HasRoom(owner, s.of[owner], s.total, s.most, n) {
		return false
	}
	s.total += n
	s.of[owner] += n
	return true
}

// Leave has an owner hold n less.
func (s *Share) Leave(owner Owner, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total -= n
	if s.of[owner] -= n; s.of[owner] == 0 {
		delete(s.of, owner)
	}
}

// room returns how much is left in all.
func (s *Share) room() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most - s.total
}
