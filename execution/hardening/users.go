package hardening

import (
	"math/rand/v2"
	"sync"
)

// FirstUser is the first of [UserCount] users that sandboxes have, one each. They lie
// where systemd's overview of user ids (UIDS-GIDS.md) has none assigned, and the sandbox
// image names them all.
const (
	FirstUser = 1_900_000_000
	UserCount = 1024
)

// Users gives sandboxes users of their own: the kernel counts pipe buffers, descriptors
// in flight, watches of epoll, signals and message queues for each user. The zero value
// is ready to use, and safe for concurrent use.
type Users struct {
	mu     sync.Mutex
	taken  map[int]bool
	latest int
}

// Take returns a user that no other sandbox of this server has. When it has given all
// away, it returns one of them again. Servers begin at different places.
func (u *Users) Take() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.taken == nil {
		u.taken = make(map[int]bool)
		u.latest = rand.IntN(UserCount) //nolint:gosec // G404: nobody gains by guessing it
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

// Release makes a user available to other sandboxes. Others than those of Take do not
// matter.
func (u *Users) Release(user int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.taken, user-FirstUser)
}
