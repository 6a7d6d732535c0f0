package execution

import "sync"

// HasRoom says whether an owner may have one more of something of which there may
// be so many in all: at most twice as many as are left for others. One alone gets
// two thirds, two get two fifths each, and so on: whoever comes next finds room,
// but for the smallest bounds. Where nobody is asked who they are, all is for
// everybody.
func HasRoom(owner Owner, own, total, most int) bool {
	left := most - total
	return left > 0 && (owner == "" || own < 2*left)
}

// Share bounds how many requests are under way, in all and of each owner, as
// [HasRoom] says. It is safe for concurrent use.
type Share struct {
	most int

	mu    sync.Mutex
	total int
	of    map[Owner]int
}

// NewShare makes a Share of so many.
func NewShare(most int) *Share { return &Share{most: most, of: make(map[Owner]int)} }

// Enter counts a request, and says whether it may go on. One that may must leave.
func (s *Share) Enter(owner Owner) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !HasRoom(owner, s.of[owner], s.total, s.most) {
		return false
	}
	s.total++
	s.of[owner]++
	return true
}

// Leave ends a request.
func (s *Share) Leave(owner Owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.of[owner]--; s.of[owner] == 0 {
		delete(s.of, owner)
	}
}
