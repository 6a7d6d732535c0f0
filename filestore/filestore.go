// Package filestore keeps files for clients between requests: what they
// upload, and what programs make. A file belongs to the owner of the request that
// made it ([execution.OwnerOf]), and to others it does not exist. It stands on a bucket of gocloud.dev/blob: a
// folder, or one of an object store, which several servers may share.
//
// A file is two objects: its bytes under its id, in its owner's folder, and what
// is known of it beside them, with ".json" behind. The second is written last and
// deleted first, so a file is there wholly or not at all.
package filestore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Options configure a [Store].
type Options struct {
	// URL is the bucket's: file:///folder, s3://bucket or gs://bucket, with the
	// options of gocloud.dev/blob. A folder is made where it is missing.
	URL string
	// MaxFileBytes bounds each file. It must be positive.
	MaxFileBytes int64
	// MaxBytes bounds all files together, each of which counts as 4 KB at least. It
	// must be positive. What other servers do with the bucket is noticed at each
	// [Store.Sweep].
	MaxBytes int64
	// TTL is how long a file is kept. Zero means forever.
	TTL time.Duration
	// Log gets what goes wrong in the background. Nil means nowhere.
	Log *slog.Logger
}

// Info is what is known of a file.
type Info struct {
	// ID names the file; nobody can guess it.
	ID string `json:"id"`
	// Name is what its client calls it. It is any text, and no path of ours.
	Name string `json:"name"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// Uploaded is when it was complete.
	Uploaded time.Time `json:"uploaded"`
	// Owner is who stored it.
	Owner execution.Owner `json:"owner,omitempty"`

	key string // where its bytes are
}

// Store keeps files. It is safe for concurrent use.
type Store struct {
	opts   Options
	used   atomic.Bool  // a method has called ready
	open   func() error // sets bucket and folder; called once, by ready
	bucket *blob.Bucket
	folder string // where the bucket is one; else ""

	usage usage
	lists *execution.Turns

	mu         sync.Mutex
	holds      map[string]*hold
	unreadable map[string]bool // keys of files of which the log has been told that nothing can be known
}

// hold is a file that somebody reads, or that is being deleted.
type hold struct {
	readers int
	deleted bool // it is to go when the last reader has left
	size    int64
}

// newID makes an identifier that nobody guesses: 128 random bits.
func newID() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// isID says whether a text has the form of an identifier of ours. No other
// becomes part of a key.
func isID(text string) bool {
	return len(text) == 32 && strings.Trim(text, "0123456789abcdef") == ""
}

// notFound is the error for an id that stands for no file.
func notFound(id string) error {
	return &execution.Error{Code: execution.NotFound, Message: fmt.Sprintf("File with ID '%s' not found", execution.Clip(id))}
}

// failure is the error for a bucket that fails. Where ctx has ended, that is
// why: its code is [execution.Cancelled].
func failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &execution.Error{Code: execution.Cancelled, Message: "the caller left", Err: context.Cause(ctx)}
	}
	return fmt.Errorf("file store: %w", err)
}

// Stat tells what is known of a file. The error of an unknown or expired id, or
// somebody else's, is an [*execution.Error] with code [execution.NotFound]; where ctx has ended, of
// whatever the bucket fails at, one with code [execution.Cancelled].
func (s *Store) Stat(ctx context.Context, id string) (Info, error) {
	if err := s.ready(); err != nil {
		return Info{}, err
	}
	if !isID(id) || s.isDeleted(id) {
		return Info{}, notFound(id)
	}
	info, err := s.readMeta(ctx, folderOf(execution.OwnerOf(ctx))+id)
	if err == nil && (s.expired(info) || info.Owner != execution.OwnerOf(ctx)) {
		return Info{}, notFound(id)
	}
	return info, err
}

// readMeta reads what lies beside a file's bytes.
func (s *Store) readMeta(ctx context.Context, key string) (Info, error) {
	id := path.Base(key)
	data, err := s.bucket.ReadAll(ctx, key+metaSuffix)
	switch {
	case gcerrors.Code(err) == gcerrors.NotFound:
		return Info{}, notFound(id)
	case err != nil:
		return Info{}, failure(ctx, err)
	}
	info := Info{key: key}
	if err := json.Unmarshal(data, &info); err != nil {
		return Info{}, fmt.Errorf("%w: %s: %w", errUnreadable, id, err)
	}
	if info.ID != id {
		return Info{}, fmt.Errorf("%w: %s: it is of %.40q", errUnreadable, id, info.ID)
	}
	return info, nil
}

// errUnreadable says that what lies beside a file's bytes was not written by us, or
// has been damaged since.
var errUnreadable = errors.New("file store: what is known of a file cannot be read")

func (s *Store) expired(info Info) bool {
	return s.opts.TTL > 0 && time.Since(info.Uploaded) >= s.opts.TTL
}

func (s *Store) isDeleted(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holds[id]
	return h != nil && h.deleted
}

// Held is a stored file that stays until it is released, even if it expires or
// is deleted meanwhile.
type Held struct {
	Info
	store   *Store
	release func()
}

// Hold holds a file without opening it. Its error is as for [Store.Stat].
func (s *Store) Hold(ctx context.Context, id string) (*Held, error) {
	info, err := s.Stat(ctx, id)
	if err != nil {
		return nil, err
	}
	if !s.hold(info) {
		return nil, notFound(id)
	}
	held := &Held{Info: info, store: s, release: sync.OnceFunc(func() { s.release(context.WithoutCancel(ctx), info) })}
	if there, err := s.bucket.Exists(ctx, info.key); err != nil || !there { // it may have gone before it was held
		held.Release()
		if err != nil {
			return nil, failure(ctx, err)
		}
		return nil, notFound(id)
	}
	return held, nil
}

// Open opens the file for reading. The reader is closed before the file is
// released.
func (h *Held) Open(ctx context.Context) (io.ReadCloser, error) {
	r, err := h.store.bucket.NewReader(ctx, h.key, nil)
	switch {
	case gcerrors.Code(err) == gcerrors.NotFound: // another server has deleted it
		return nil, notFound(h.ID)
	case err != nil:
		return nil, failure(ctx, err)
	}
	return r, nil
}

// Release lets the file go. It may be called more than once.
func (h *Held) Release() { h.release() }

// File is a stored file, held and open for reading.
type File struct {
	Info
	io.Reader
	close func() error
}

// Close closes the file and lets it go. It may be called more than once.
func (f *File) Close() error { return f.close() }

// Get opens a file for reading. Its error is as for [Store.Stat].
func (s *Store) Get(ctx context.Context, id string) (*File, error) {
	held, err := s.Hold(ctx, id)
	if err != nil {
		return nil, err
	}
	r, err := held.Open(ctx)
	if err != nil {
		held.Release()
		return nil, err
	}
	return &File{Info: held.Info, Reader: r, close: sync.OnceValue(func() error {
		defer held.Release()
		return r.Close()
	})}, nil
}

func (s *Store) hold(info Info) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holds[info.ID]
	if h == nil {
		h = &hold{size: info.Size}
		s.holds[info.ID] = h
	}
	if h.deleted {
		return false
	}
	h.readers++
	return true
}

func (s *Store) release(ctx context.Context, info Info) {
	s.mu.Lock()
	h := s.holds[info.ID]
	h.readers--
	last, deleted := h.readers == 0, h.deleted
	if last && !deleted {
		delete(s.holds, info.ID)
	}
	s.mu.Unlock()
	if last && deleted {
		s.remove(ctx, info)
		s.forget(info.ID)
	}
}

func (s *Store) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.holds, id)
}

// Delete deletes a file: nobody finds it any more, though who reads it may read
// on. Its error is as for [Store.Stat].
func (s *Store) Delete(ctx context.Context, id string) error {
	info, err := s.Stat(ctx, id)
	if err != nil {
		return err
	}
	if !s.condemn(info) {
		return notFound(id) // somebody else was faster
	}
	if err := s.bucket.Delete(ctx, info.key+metaSuffix); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		s.pardon(id)
		return failure(ctx, err)
	}
	s.release(ctx, info)
	return nil
}

// condemn marks a file as deleted and holds it. It says whether it was not.
func (s *Store) condemn(info Info) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holds[info.ID]
	if h == nil {
		h = &hold{size: info.Size}
		s.holds[info.ID] = h
	}
	if h.deleted {
		return false
	}
	h.deleted = true
	h.readers++
	return true
}

// pardon takes condemn back.
func (s *Store) pardon(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holds[id]
	h.deleted = false
	if h.readers--; h.readers == 0 {
		delete(s.holds, id)
	}
}

// remove removes a file's objects, and takes it off the count.
func (s *Store) remove(ctx context.Context, info Info) {
	s.deleteObjects(ctx, info.key)
	s.usage.remove(info.ID)
}

// deleteTime bounds the deletion of a file's objects, whose own time it is.
const deleteTime = 30 * time.Second

// deleteObjects deletes what there is of a file, even if ctx has ended. What
// cannot be deleted the sweep finds later.
func (s *Store) deleteObjects(ctx context.Context, file string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteTime)
	defer cancel()
	for _, key := range []string{file + metaSuffix, file} {
		if err := s.bucket.Delete(ctx, key); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
			s.opts.Log.WarnContext(ctx, "a file could not be removed; the sweep will try again", "file", file, "error", err)
		}
	}
}
