package hardening

import (
	"math/rand/v2"
	"sync"
)

// FirstUser is the first of [UserCount] user ids for sandboxes, one each. systemd's overview
// of user ids (UIDS-GIDS.md) assigns none of them, and the sandbox image names them all.
const (
	FirstUser = 1_900_000_000
	UserCount = 1024
)

// Users assigns each sandbox its own user id. The kernel limits pipe buffers, descriptors in
// flight, watches of epoll, signals and message queues by user, so sandboxes do not share
// these limits. The zero value is ready to use. It is safe for concurrent use.
type Users struct {
	mu     sync.Mutex
	taken  map[int]bool
	latest int
}

// Take returns a user id that no other sandbox of this server has. If all are taken, it
// returns one of them a second time. Each server starts at a random id.
func (u *Users) Take() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.taken == nil {
		u.taken = make(map[int]bool)
		u.latest = rand.IntN(UserCount) //nolint:gosec // G404: the number is not secret
	}
	for range UserCount {
		u.latest = (u.latest + 1) % UserCount
		if !u.taken[u.latest] {
			break
		}
	}
	u.taken[u.latest] = true
	return FirstUser + u.latest
}

// Release makes a user id available to other sandboxes. It ignores ids that Take has not
// returned.
func (u *Users) Release(user int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.taken, user-FirstUser)
}
