package filestore

import (
	"maps"
	"sync"
)

// usage counts the bytes that files take.
//
// Other servers may use the same bucket, so files are counted anew now and
// again. What this server stores or removes while a recount looks may have been
// seen by it or not: it is noted, and comes before what was seen.
type usage struct {
	mu      sync.Mutex
	used    int64            // by all files, those included that are being written
	writing map[string]int64 // by each file that is being written
	changed map[string]int64 // by each file that was stored (or 0: removed) during a recount; nil without one
}

// take takes room for a file that is being written, and says whether there was
// any below the limit.
func (u *usage) take(id string, n, limit int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.used+n > limit {
		return false
	}
	if u.writing == nil {
		u.writing = make(map[string]int64)
	}
	u.used += n
	u.writing[id] += n
	return true
}

// abandon gives back the room of a file that was being written.
func (u *usage) abandon(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.used -= u.writing[id]
	delete(u.writing, id)
}

// add notes that a file that was being written is stored.
func (u *usage) add(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.noteLocked(id, u.writing[id])
	delete(u.writing, id)
}

// remove notes that a stored file is gone.
func (u *usage) remove(id string, size int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.used -= size
	u.noteLocked(id, 0)
}

func (u *usage) noteLocked(id string, size int64) {
	if u.changed != nil {
		u.changed[id] = size
	}
}

// startRecount begins a recount. There must be no other.
func (u *usage) startRecount() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.changed = make(map[string]int64)
}

// endRecount ends a recount with the sizes of the files that it saw, by id. Nil
// gives it up.
func (u *usage) endRecount(seen map[string]int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	changed := u.changed
	u.changed = nil
	if seen == nil {
		return
	}
	maps.Copy(seen, changed)
	maps.Copy(seen, u.writing)
	u.used = 0
	for _, size := range seen {
		u.used += size
	}
}
