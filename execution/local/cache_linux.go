package local

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"

	"github.com/vivarium-sandbox/vivarium/internal/folder"
)

// cache remembers values for all servers and commands of this user, in a folder that is this
// user's alone. The zero value remembers nothing.
type cache struct{ folder string }

// maxCached is how many values a cache holds. All are forgotten when there are more.
const maxCached = 100

// openCache returns the cache with a name. Where its folder cannot be made or is not safe, it
// remembers nothing.
func openCache(name string) cache {
	all, err := os.UserCacheDir()
	if err != nil {
		return cache{}
	}
	own, err := folder.Make(filepath.Join(all, name), folder.Private)
	if err != nil {
		return cache{}
	}
	return cache{own}
}

// path returns the file that holds the value for a key.
func (c cache) path(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(c.folder, hex.EncodeToString(sum[:]))
}

// get returns the value for a key, or nil. A file that is not whole, as after a power failure,
// counts as missing.
func (c cache) get(key string) []byte {
	if c.folder == "" {
		return nil
	}
	data, err := os.ReadFile(c.path(key))
	if err != nil || len(data) < sha256.Size {
		return nil
	}
	sum, value := data[:sha256.Size], data[sha256.Size:]
	if want := sha256.Sum256(value); !bytes.Equal(sum, want[:]) {
		return nil
	}
	return value
}

// put remembers a value. A failure only costs time.
func (c cache) put(key string, value []byte) {
	if c.folder == "" {
		return
	}
	entries, _ := os.ReadDir(c.folder)
	if len(entries) >= maxCached {
		for _, entry := range entries {
			_ = os.Remove(filepath.Join(c.folder, entry.Name()))
		}
	}
	whole, sum := filepath.Join(c.folder, newID()), sha256.Sum256(value)
	if os.WriteFile(whole, append(sum[:], value...), 0o600) != nil || os.Rename(whole, c.path(key)) != nil {
		_ = os.Remove(whole)
	}
}
