package filestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"gocloud.dev/blob"
	"golang.org/x/sync/errgroup"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// listsAtOnce bounds the concurrent lists of one owner: each reads the metadata of all
// the owner's files.
const listsAtOnce = 2

// listedBytes is the memory that an object takes while it is listed. A file is two
// objects.
const listedBytes = 1000

// List returns the files of the request's owner that have not expired, in no order. If
// ctx has ended, its error has code [execution.Cancelled].
func (s *Store) List(ctx context.Context) ([]Info, error) {
	leave, err := s.lists.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := s.ready(); err != nil {
		return nil, err
	}
	owner := execution.OwnerOf(ctx)
	found, err := s.survey(ctx, folderOf(owner), false)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found.files, func(info Info) bool {
		return info.Owner != owner || s.expired(info) || s.isDeleted(info.ID)
	}), nil
}

// survey is the content of the bucket, or of a folder of it.
type survey struct {
	store  *Store
	others []*blob.ListObject // whose keys are those of a file's bytes or of a part of them

	mu    sync.Mutex
	files []Info
	known map[string]bool // keys of files with metadata, even if it is unreadable
}

// survey reads the metadata of the files in a folder and, if below is set, in the folders
// below it.
func (s *Store) survey(ctx context.Context, folder string, below bool) (*survey, error) {
	objects, err := s.objects(ctx, folder, below)
	if err != nil {
		return nil, err
	}
	found := &survey{store: s, known: make(map[string]bool)}
	const atOnce = 16 // each is a request to an object store
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, object := range objects {
		file, rest, ours := cutKey(object.Key)
		switch {
		case !ours:
		case rest != metaSuffix:
			found.others = append(found.others, object)
		default:
			group.Go(func() error { return found.read(ctx, file) })
		}
	}
	return found, group.Wait()
}

// read reads the metadata of a file. Unreadable metadata is logged and left for the
// operator; it does not affect the other files.
func (v *survey) read(ctx context.Context, file string) error {
	info, err := v.store.readMeta(ctx, file)
	damaged := errors.Is(err, errUnreadable)
	switch {
	case damaged:
		v.store.warnOnce(ctx, file, err)
	case err != nil:
		return ignoreNotFound(err) // it was deleted meanwhile
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.known[file] = true
	if !damaged {
		v.files = append(v.files, info)
	}
	return nil
}

// warnOnce logs that the metadata of a file is unreadable, once and not at each sweep.
func (s *Store) warnOnce(ctx context.Context, file string, err error) {
	s.mu.Lock()
	logged := s.unreadable[file]
	s.unreadable[file] = true
	s.mu.Unlock()
	if !logged {
		s.opts.Log.WarnContext(ctx, "ignoring a stored file", "file", file, "error", err)
	}
}

func ignoreNotFound(err error) error {
	if execution.AsError(err).Code == execution.NotFound {
		return nil
	}
	return err
}

// objects lists a folder of the bucket and, if below is set, the folders below it.
func (s *Store) objects(ctx context.Context, folder string, below bool) ([]*blob.ListObject, error) {
	if s.folder != "" {
		return s.listFolder(ctx, folder, below)
	}
	options := &blob.ListOptions{Prefix: folder}
	if !below {
		options.Delimiter = "/"
	}
	var found []*blob.ListObject
	objects := s.bucket.List(options)
	for {
		object, err := objects.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return nil, failure(ctx, err)
		case object.IsDir:
		default:
			if err := execution.AccountOf(ctx).Take(listedBytes); err != nil {
				return nil, err
			}
			found = append(found, object)
		}
	}
}

// listFolder lists a folder of a bucket that is a folder itself. The library's listing
// fails if a file is deleted meanwhile, as happens with each upload (v0.47.0).
func (s *Store) listFolder(ctx context.Context, folder string, below bool) ([]*blob.ListObject, error) {
	entries, err := os.ReadDir(filepath.Join(s.folder, folder))
	if folder != "" && errors.Is(err, os.ErrNotExist) {
		return nil, nil // its owner has stored nothing yet
	}
	if err != nil {
		return nil, fmt.Errorf("file store: %w", err)
	}
	if err := execution.AccountOf(ctx).Take(listedBytes * int64(len(entries))); err != nil {
		return nil, err
	}
	var found []*blob.ListObject
	for _, entry := range entries {
		objects, err := s.listEntry(ctx, folder, entry, below)
		if err != nil {
			return nil, err
		}
		found = append(found, objects...)
	}
	return found, nil
}

// listEntry lists one entry of a folder. It lists nothing for a deleted one.
func (s *Store) listEntry(ctx context.Context, folder string, entry os.DirEntry, below bool) ([]*blob.ListObject, error) {
	if inner := entry.Name() + "/"; below && entry.IsDir() && isOwnersFolder(inner) {
		return s.listFolder(ctx, inner, false)
	}
	info, err := entry.Info()
	switch {
	case errors.Is(err, os.ErrNotExist), !entry.Type().IsRegular():
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("file store: %w", err)
	}
	return []*blob.ListObject{{Key: folder + entry.Name(), ModTime: info.ModTime(), Size: info.Size()}}, nil
}

// recount surveys the bucket and counts the room that its files take. It must not run
// concurrently with itself.
func (s *Store) recount(ctx context.Context) (*survey, error) {
	s.usage.startRecount()
	found, err := s.survey(ctx, "", true)
	if err != nil {
		s.usage.endRecount(nil)
		return nil, err
	}
	seen := s.condemned()
	for _, info := range found.files {
		seen[info.ID] = roomOf(info.Size)
	}
	s.usage.endRecount(seen)
	return found, nil
}

// condemned returns the room of the files that are deleted and still have readers.
func (s *Store) condemned() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	rooms := make(map[string]int64)
	for id, h := range s.holds {
		if h.deleted {
			rooms[id] = roomOf(h.size)
		}
	}
	return rooms
}

// orphanAge is the age at which an object without metadata counts as left by a server
// that died while it wrote or deleted the file. No upload takes as long.
const orphanAge = 2 * uploadTime

// Sweep removes expired files and what dead servers have left, and counts the files
// again. It returns how many files had expired. It does nothing to a store that is not
// open. It must not run concurrently with itself.
func (s *Store) Sweep(ctx context.Context) (int, error) {
	if !s.isOpen() {
		return 0, nil
	}
	found, err := s.recount(ctx)
	if err != nil {
		return 0, err
	}
	expired := 0
	for _, info := range found.files {
		if s.expired(info) {
			s.expire(ctx, info)
			expired++
		}
	}
	for _, object := range found.others {
		if found.known[object.Key] || time.Since(object.ModTime) <= orphanAge || s.isHeld(path.Base(object.Key)) {
			continue
		}
		_ = s.bucket.Delete(ctx, object.Key) // the next sweep tries again
	}
	return expired, nil
}

// isHeld reports whether a file is held. The last reader of a deleted file removes it.
func (s *Store) isHeld(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holds[id] != nil
}

// expire removes a file, or leaves that to its last reader.
func (s *Store) expire(ctx context.Context, info Info) {
	if s.condemn(info) {
		s.release(ctx, info)
	}
}
