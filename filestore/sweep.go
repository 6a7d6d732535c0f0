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

// listsAtOnce is how many lists of one owner may be made at once: each reads what is
// known of every file of theirs.
const listsAtOnce = 2

// listedBytes is what an object takes while it is listed; a file is two of them.
const listedBytes = 1000

// List lists the files of the request's owner, those that have expired left out,
// in no order. Where ctx has ended, its error has code [execution.Cancelled].
func (s *Store) List(ctx context.Context) ([]Info, error) {
	leave, err := s.lists.Take(ctx)
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

// survey is what is in the bucket, or a folder of it.
type survey struct {
	store  *Store
	others []*blob.ListObject // named as a file's bytes or a part of them are

	mu    sync.Mutex
	files []Info
	known map[string]bool // keys with something beside the bytes, even if it cannot be read
}

// survey reads what is known of the files in a folder, or below it too.
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

// read reads what is known of a file. What cannot be read says nothing about the
// others, and is left for somebody to look at.
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

// warnOnce tells the log of a file that cannot be read, and not at each sweep.
func (s *Store) warnOnce(ctx context.Context, file string, err error) {
	s.mu.Lock()
	told := s.unreadable[file]
	s.unreadable[file] = true
	s.mu.Unlock()
	if !told {
		s.opts.Log.WarnContext(ctx, "a stored file is left out", "file", file, "error", err)
	}
}

func ignoreNotFound(err error) error {
	if execution.AsError(err).Code == execution.NotFound {
		return nil
	}
	return err
}

// objects lists a folder of the bucket, or what is below it too.
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

// listFolder lists a folder of a bucket that is one itself. The library's listing
// fails where a file goes meanwhile, as one does with each upload (v0.47.0).
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

// listEntry lists one entry of a folder. One that has gone is none.
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

// recount surveys the bucket and counts what is in it. There must be no other
// recount meanwhile.
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

// condemned gives the room of the files that are deleted, but not removed, as
// somebody reads them.
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

// orphanAge is how old an object must be to count as left by a server that
// died while it wrote or deleted the file: no upload takes as long.
const orphanAge = 2 * uploadTime

// Sweep removes the files that have expired and what dead servers have left, and
// counts what is there again. It returns how many files had expired. It does nothing
// to a store that is not open. There must be one sweep at a time.
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

// isHeld says whether a file is held: its last reader removes it, if it is to go.
func (s *Store) isHeld(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holds[id] != nil
}

// expire removes a file, or has its last reader do so.
func (s *Store) expire(ctx context.Context, info Info) {
	if s.condemn(info) {
		s.release(ctx, info)
	}
}
