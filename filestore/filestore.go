// Package filestore keeps files for clients between requests: what they
// upload, and what programs make. It stands on a bucket of gocloud.dev/blob,
// which is a folder so far.
//
// A file is two objects: its bytes under its id, and what is known of it beside
// them, under the id with ".json" behind. The second is written last and
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
	"os"
	"strings"
	"sync"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Options configure a [Store].
type Options struct {
	// URL is the bucket's: file:///folder. The folder is made where it is missing.
	URL string
	// MaxFileBytes bounds each file. It must be positive.
	MaxFileBytes int64
	// MaxBytes bounds all files together. It must be positive.
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
}

// Store keeps files. It is safe for concurrent use.
type Store struct {
	bucket *blob.Bucket
	folder string // where the bucket is one; else ""
	opts   Options

	mu    sync.Mutex
	used  int64 // bytes of all files, those included that are being written
	holds map[string]*hold
}

// hold is a file that somebody reads, or that is being deleted.
type hold struct {
	readers int
	deleted bool // it is to go when the last reader has left
	size    int64
}

// Open opens the store and counts what is in it.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	bucket, folder, err := openBucket(opts.URL)
	if err != nil {
		return nil, err
	}
	s := &Store{bucket: bucket, folder: folder, opts: opts, holds: make(map[string]*hold)}
	files, err := s.List(ctx)
	if err != nil {
		return nil, errors.Join(err, bucket.Close())
	}
	for _, file := range files {
		s.used += file.Size
	}
	return s, nil
}

// Close closes the bucket. No method may be called after it.
func (s *Store) Close() error { return s.bucket.Close() }

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

const metaSuffix = ".json"

// notFound is the error for an id that stands for no file.
func notFound(id string) error {
	return &execution.Error{Code: execution.NotFound, Message: fmt.Sprintf("File with ID '%s' not found", clip(id))}
}

func clip(text string) string {
	const most = 100
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// Put stores what r gives, to its end, under a new id. Where r or anything else
// fails, nothing is left of it; an error of r's comes back as it is.
func (s *Store) Put(ctx context.Context, name string, r io.Reader) (Info, error) {
	info := Info{ID: newID(), Name: name}
	in := &meter{store: s, r: r}
	if err := s.write(ctx, info.ID, in); err != nil {
		s.give(in.taken)
		return Info{}, err
	}
	info.Size, info.Uploaded = in.taken, time.Now().UTC().Truncate(time.Millisecond)
	meta, err := json.Marshal(info)
	if err == nil {
		err = s.write(ctx, info.ID+metaSuffix, strings.NewReader(string(meta)))
	}
	if err != nil {
		s.remove(context.WithoutCancel(ctx), info)
		return Info{}, err
	}
	return info, nil
}

// meter takes room in the store for what is read through it.
type meter struct {
	store *Store
	r     io.Reader
	taken int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	limit := m.store.opts.MaxFileBytes
	if m.taken+int64(n) > limit {
		return 0, &execution.Error{Code: execution.TooLarge, Message: fmt.Sprintf("File size exceeds maximum of %d MB", limit>>20)}
	}
	if n > 0 && !m.store.take(int64(n)) {
		return 0, &execution.Error{Code: execution.StoreFull, Message: fmt.Sprintf(
			"The file store is full: all files together may have %d MB. Delete files, or wait until some expire", m.store.opts.MaxBytes>>20)}
	}
	m.taken += int64(n)
	return n, err
}

func (s *Store) take(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used+n > s.opts.MaxBytes {
		return false
	}
	s.used += n
	return true
}

func (s *Store) give(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
}

// write writes one object, which is there when all of it is on the disk.
func (s *Store) write(ctx context.Context, key string, r io.Reader) error {
	ctx, abort := context.WithCancel(ctx)
	defer abort()
	var file *os.File
	w, err := s.bucket.NewWriter(ctx, key, &blob.WriterOptions{
		ContentType: "application/octet-stream",
		BeforeWrite: func(as func(any) bool) error {
			as(&file) // where the bucket is a folder
			return nil
		},
	})
	if err != nil {
		return fmt.Errorf("file store: %w", err)
	}
	if _, err = copyAll(w, r); err == nil && file != nil {
		err = file.Sync()
	}
	if err != nil {
		abort()
		_ = w.Close() // it was given up
		return err
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("file store: %w", err)
	}
	return s.syncFolder()
}

// copyAll hides whatever else its arguments can do: the meter must see each
// byte.
func copyAll(w io.Writer, r io.Reader) (int64, error) {
	const chunk = 256 << 10
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, chunk))
}

// syncFolder puts new names on the disk.
func (s *Store) syncFolder() error {
	if s.folder == "" {
		return nil
	}
	folder, err := os.Open(s.folder)
	if err != nil {
		return fmt.Errorf("file store: %w", err)
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// Stat tells what is known of a file. The error of an unknown or expired id is
// an [*execution.Error] with code [execution.NotFound].
func (s *Store) Stat(ctx context.Context, id string) (Info, error) {
	if !isID(id) || s.isDeleted(id) {
		return Info{}, notFound(id)
	}
	info, err := s.readMeta(ctx, id)
	if err == nil && s.expired(info) {
		return Info{}, notFound(id)
	}
	return info, err
}

// readMeta reads what lies beside a file's bytes.
func (s *Store) readMeta(ctx context.Context, id string) (Info, error) {
	data, err := s.bucket.ReadAll(ctx, id+metaSuffix)
	switch {
	case gcerrors.Code(err) == gcerrors.NotFound:
		return Info{}, notFound(id)
	case err != nil:
		return Info{}, fmt.Errorf("file store: %w", err)
	}
	var info Info
	if err := json.Unmarshal(data, &info); err != nil || info.ID != id {
		return Info{}, fmt.Errorf("file store: what is known of %s cannot be read: %w", id, err)
	}
	return info, nil
}

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
	if there, err := s.bucket.Exists(ctx, id); err != nil || !there { // it may have gone before it was held
		held.Release()
		if err != nil {
			return nil, fmt.Errorf("file store: %w", err)
		}
		return nil, notFound(id)
	}
	return held, nil
}

// Open opens the file for reading. The reader is closed before the file is
// released.
func (h *Held) Open(ctx context.Context) (io.ReadCloser, error) {
	r, err := h.store.bucket.NewReader(ctx, h.ID, nil)
	if err != nil {
		return nil, fmt.Errorf("file store: %w", err)
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
	if err := s.bucket.Delete(ctx, id+metaSuffix); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		s.pardon(id)
		return fmt.Errorf("file store: %w", err)
	}
	s.release(context.WithoutCancel(ctx), info)
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

// remove removes a file's objects, and takes it off the count. What cannot be
// removed the sweep finds later.
func (s *Store) remove(ctx context.Context, info Info) {
	for _, key := range []string{info.ID + metaSuffix, info.ID} {
		if err := s.bucket.Delete(ctx, key); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
			s.opts.Log.WarnContext(ctx, "a file could not be removed; the sweep will try again", "file", info.ID, "error", err)
		}
	}
	s.give(info.Size)
}

// List lists the files, those that have expired left out, in no order.
func (s *Store) List(ctx context.Context) ([]Info, error) {
	files := []Info{}
	err := s.each(ctx, func(object *blob.ListObject) error {
		id, isMeta := strings.CutSuffix(object.Key, metaSuffix)
		if !isMeta || !isID(id) {
			return nil
		}
		info, err := s.Stat(ctx, id)
		if err != nil && execution.AsError(err).Code == execution.NotFound {
			return nil
		}
		files = append(files, info)
		return err
	})
	return files, err
}

func (s *Store) each(ctx context.Context, do func(*blob.ListObject) error) error {
	objects := s.bucket.List(nil)
	for {
		object, err := objects.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("file store: %w", err)
		}
		if err := do(object); err != nil {
			return err
		}
	}
}

// orphanAge is how old an object must be to count as left by a server that
// died while it wrote or deleted the file: no upload takes as long.
const orphanAge = time.Hour

// Sweep removes the files that have expired and what dead servers have left. It
// says how many files had expired.
func (s *Store) Sweep(ctx context.Context) (int, error) {
	known := make(map[string]bool)
	var expired []Info
	var orphans []*blob.ListObject
	err := s.each(ctx, func(object *blob.ListObject) error {
		id, rest, _ := strings.Cut(object.Key, ".")
		switch {
		case !isID(id): // not ours
		case "."+rest == metaSuffix:
			info, err := s.readMeta(ctx, id)
			if known[id] = err == nil; known[id] && s.expired(info) {
				expired = append(expired, info)
			}
		case time.Since(object.ModTime) > orphanAge:
			orphans = append(orphans, object)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, info := range expired {
		if s.condemn(info) {
			s.release(ctx, info)
		}
	}
	for _, object := range orphans {
		if id, _, _ := strings.Cut(object.Key, "."); !known[id] || object.Key != id {
			_ = s.bucket.Delete(ctx, object.Key) // the next sweep tries again
		}
	}
	return len(expired), nil
}
