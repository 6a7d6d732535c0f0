// Package filestore stores files for clients between requests: those that they
// upload, and those that programs create. A file belongs to the owner of the request
// that stored it ([execution.OwnerOf]); for other owners it does not exist. The store
// uses a bucket of gocloud.dev/blob: a folder, or a bucket of an object store, which
// several servers may share.
//
// A file consists of two objects: its bytes, whose key is the id in the owner's folder,
// and its metadata, whose key ends with ".json" in addition. The metadata is written
// last and deleted first, so that a file exists wholly or not at all.
package filestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Options configure a [Store].
type Options struct {
	// URL is that of the bucket: file:///folder, s3://bucket or gs://bucket, with the
	// options of gocloud.dev/blob. A missing folder is created.
	URL string
	// MaxFileBytes bounds each file. It must be positive.
	MaxFileBytes int64
	// MaxBytes bounds all files together. Each counts as at least 4 KB. It must be
	// positive. Each [Store.Sweep] counts what other servers have stored and deleted.
	MaxBytes int64
	// TTL is how long a file is kept. Zero means forever.
	TTL time.Duration
	// Log receives the failures of background work. Nil discards them.
	Log *slog.Logger
}

// Info is the metadata of a file.
type Info struct {
	// ID identifies the file. It cannot be guessed.
	ID string `json:"id"`
	// Name is the client's name for the file. It is any text, and never used as a path.
	Name string `json:"name"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// Uploaded is when the file was complete.
	Uploaded time.Time `json:"uploaded"`
	// Owner stored the file.
	Owner execution.Owner `json:"owner,omitempty"`

	key string // of its bytes
}

// Store stores files. It is safe for concurrent use.
type Store struct {
	opts   Options
	used   atomic.Bool  // a method has called ready
	open   func() error // sets bucket and folder; called once, by ready
	bucket *blob.Bucket
	folder string // the path of a bucket that is a folder, else ""

	usage usage
	lists *execution.OwnerSemaphore

	mu         sync.Mutex
	holds      map[string]*hold
	unreadable map[string]bool // keys of files with unreadable metadata that were logged
}

// hold is a file that is in use or is being deleted.
type hold struct {
	readers int
	deleted bool // the last reader removes it
	size    int64
}

// notFound returns the error for an id of no file.
func notFound(id string) error {
	return &execution.Error{Code: execution.NotFound, Message: fmt.Sprintf("File with ID '%s' not found", execution.Clip(id))}
}

// failure returns the error for a bucket that fails. If ctx has ended, that is the
// cause, and the code is [execution.Cancelled].
func failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return execution.CancelledError(ctx)
	}
	return fmt.Errorf("file store: %w", err)
}

// Stat returns the metadata of a file. Its error is an [*execution.Error] with code
// [execution.NotFound] if the id is unknown, the file has expired, or it belongs to
// another owner, and with code [execution.Cancelled] if the bucket failed after ctx had
// ended.
func (s *Store) Stat(ctx context.Context, id string) (Info, error) {
	if err := s.ready(); err != nil {
		return Info{}, err
	}
	if !execution.IsID(id) || s.isDeleted(id) {
		return Info{}, notFound(id)
	}
	info, err := s.readMeta(ctx, folderOf(execution.OwnerOf(ctx))+id)
	if err == nil && (s.expired(info) || info.Owner != execution.OwnerOf(ctx)) {
		return Info{}, notFound(id)
	}
	return info, err
}

// readMeta reads the metadata of a file.
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
		return Info{}, fmt.Errorf("%w: %s: it names the file %.40q", errUnreadable, id, info.ID)
	}
	return info, nil
}

// errUnreadable is the error for metadata that was damaged or was not written by a
// [Store].
var errUnreadable = errors.New("file store: the metadata of a file cannot be read")

func (s *Store) expired(info Info) bool {
	return s.opts.TTL > 0 && time.Since(info.Uploaded) >= s.opts.TTL
}

func (s *Store) isDeleted(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holds[id]
	return h != nil && h.deleted
}

// Held is a stored file that stays readable until it is released, even if it expires or
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
	if there, err := s.bucket.Exists(ctx, info.key); err != nil || !there { // it may have been deleted before it was held
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

// Release releases the file. It may be called more than once.
func (h *Held) Release() { h.release() }

// File is a stored file, held and open for reading.
type File struct {
	Info
	io.Reader
	close func() error
}

// Close closes and releases the file. It may be called more than once.
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
	h := s.holdOfLocked(info)
	if h.deleted {
		return false
	}
	h.readers++
	return true
}

// holdOfLocked returns the hold of a file, which it creates if there is none.
func (s *Store) holdOfLocked(info Info) *hold {
	h := s.holds[info.ID]
	if h == nil {
		h = &hold{size: info.Size}
		s.holds[info.ID] = h
	}
	return h
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

// Delete deletes a file. It is not found from then on, but its readers may read to the
// end. Its error is as for [Store.Stat].
func (s *Store) Delete(ctx context.Context, id string) error {
	info, err := s.Stat(ctx, id)
	if err != nil {
		return err
	}
	if !s.condemn(info) {
		return notFound(id) // another request was faster
	}
	if err := s.bucket.Delete(ctx, info.key+metaSuffix); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		s.pardon(id)
		return failure(ctx, err)
	}
	s.release(ctx, info)
	return nil
}

// condemn marks a file as deleted and holds it. It reports whether the file was not
// marked before.
func (s *Store) condemn(info Info) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holdOfLocked(info)
	if h.deleted {
		return false
	}
	h.deleted = true
	h.readers++
	return true
}

// pardon undoes condemn.
func (s *Store) pardon(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holds[id]
	h.deleted = false
	if h.readers--; h.readers == 0 {
		delete(s.holds, id)
	}
}

// remove removes a file's objects and gives back its room.
func (s *Store) remove(ctx context.Context, info Info) {
	s.deleteObjects(ctx, info.key)
	s.usage.remove(info.ID)
}

// deleteTime bounds the deletion of a file's objects, which no request's context does.
const deleteTime = 30 * time.Second

// deleteObjects deletes the objects of a file, even if ctx has ended. A later sweep
// deletes those that it cannot.
func (s *Store) deleteObjects(ctx context.Context, file string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteTime)
	defer cancel()
	for _, key := range []string{file + metaSuffix, file} {
		if err := s.bucket.Delete(ctx, key); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
			s.opts.Log.WarnContext(ctx, "cannot remove a file; the next sweep tries again", "file", file, "error", err)
		}
	}
}
