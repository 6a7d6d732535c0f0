package filestore

import (
	"maps"
	"sync"
)

// block is the smallest room that a file takes. Its name and metadata are stored too, so
// that the number of empty files must be bounded.
const block = 4096

// roomOf returns the room that a file of a size takes.
func roomOf(size int64) int64 { return max(size, block) }

// usage counts the bytes that files take.
//
// Other servers may use the same bucket, so files are counted again periodically. A
// recount may miss what this server stores or removes meanwhile. Such changes are noted,
// and override what the recount saw.
type usage struct {
	mu      sync.Mutex
	used    int64            // by all files, including those that are being written
	stored  map[string]int64 // by each stored file that this server knows
	writing map[string]int64 // by each file that is being written
	changed map[string]int64 // by each file that was stored (or 0: removed) during a recount; nil without one
}

// take takes room for a file that is being written. It reports whether there was enough
// below the limit.
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

// abandon returns the room of a file that was being written.
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
	size := u.writing[id]
	delete(u.writing, id)
	if u.stored == nil {
		u.stored = make(map[string]int64)
	}
	u.stored[id] = size
	u.noteLocked(id, size)
}

// remove notes that a stored file is removed. A file that was not counted, or was removed
// before, gives back no room.
func (u *usage) remove(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.used -= u.stored[id]
	delete(u.stored, id)
	u.noteLocked(id, 0)
}

func (u *usage) noteLocked(id string, size int64) {
	if u.changed != nil {
		u.changed[id] = size
	}
}

// startRecount begins a recount. No other may be in progress.
func (u *usage) startRecount() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.changed = make(map[string]int64)
}

// endRecount ends a recount with the sizes of the files that it saw, by id. It keeps the
// map. Nil discards the recount.
func (u *usage) endRecount(seen map[string]int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	changed := u.changed
	u.changed = nil
	if seen == nil {
		return
	}
	maps.Copy(seen, changed)
	maps.DeleteFunc(seen, func(id string, size int64) bool {
		_, writing := u.writing[id]
		return writing || size == 0
	})
	u.stored, u.used = seen, sum(seen)+sum(u.writing)
}

func sum(sizes map[string]int64) int64 {
	all := int64(0)
	for _, size := range sizes {
		all += size
	}
	return all
}
