package filestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"gocloud.dev/blob"
	"golang.org/x/sync/errgroup"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// List lists the files of the request's owner, those that have expired left out,
// in no order. Where ctx has ended, its error has code [execution.Cancelled].
func (s *Store) List(ctx context.Context) ([]Info, error) {
	found, err := s.survey(ctx)
	if err != nil {
		return nil, err
	}
	owner := execution.OwnerOf(ctx)
	return slices.DeleteFunc(found.files, func(info Info) bool {
		return info.Owner != owner || s.expired(info) || s.isDeleted(info.ID)
	}), nil
}

// survey is what is in the bucket.
type survey struct {
	store  *Store
	others []*blob.ListObject // named as a file's bytes or a part of them are

	mu    sync.Mutex
	files []Info
	known map[string]bool // ids with something beside the bytes, even if it cannot be read
}

// survey reads what is known of all files.
func (s *Store) survey(ctx context.Context) (*survey, error) {
	objects, err := s.objects(ctx)
	if err != nil {
		return nil, err
	}
	found := &survey{store: s, known: make(map[string]bool)}
	const atOnce = 16 // each is a request to an object store
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, object := range objects {
		id, rest, _ := strings.Cut(object.Key, ".")
		switch {
		case !isID(id): // not ours
		case "."+rest != metaSuffix:
			found.others = append(found.others, object)
		default:
			group.Go(func() error { return found.read(ctx, id) })
		}
	}
	return found, group.Wait()
}

// read reads what is known of a file. What cannot be read says nothing about the
// others, and is left for somebody to look at.
func (v *survey) read(ctx context.Context, id string) error {
	info, err := v.store.readMeta(ctx, id)
	damaged := errors.Is(err, errUnreadable)
	switch {
	case damaged:
		v.store.warnOnce(ctx, id, err)
	case err != nil:
		return ignoreNotFound(err) // it was deleted meanwhile
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.known[id] = true
	if !damaged {
		v.files = append(v.files, info)
	}
	return nil
}

// warnOnce tells the log of a file that cannot be read, and not at each sweep.
func (s *Store) warnOnce(ctx context.Context, id string, err error) {
	s.mu.Lock()
	told := s.unreadable[id]
	s.unreadable[id] = true
	s.mu.Unlock()
	if !told {
		s.opts.Log.WarnContext(ctx, "a stored file is left out", "file", id, "error", err)
	}
}

func ignoreNotFound(err error) error {
	if execution.AsError(err).Code == execution.NotFound {
		return nil
	}
	return err
}

// objects lists the bucket.
func (s *Store) objects(ctx context.Context) ([]*blob.ListObject, error) {
	if s.folder != "" {
		return listFolder(s.folder)
	}
	var found []*blob.ListObject
	objects := s.bucket.List(nil)
	for {
		object, err := objects.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return nil, failure(ctx, err)
		}
		found = append(found, object)
	}
}

// listFolder lists a folder that is a bucket. The library's listing fails where
// a file goes meanwhile, as one does with each upload (v0.47.0).
func listFolder(folder string) ([]*blob.ListObject, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("file store: %w", err)
	}
	found := make([]*blob.ListObject, 0, len(entries))
	for _, entry := range entries {
		info, err := entry.Info()
		switch {
		case errors.Is(err, os.ErrNotExist), !entry.Type().IsRegular():
		case err != nil:
			return nil, fmt.Errorf("file store: %w", err)
		default:
			found = append(found, &blob.ListObject{Key: entry.Name(), ModTime: info.ModTime(), Size: info.Size()})
		}
	}
	return found, nil
}

// recount surveys the bucket and counts what is in it. There must be no other
// recount meanwhile.
func (s *Store) recount(ctx context.Context) (*survey, error) {
	s.usage.startRecount()
	found, err := s.survey(ctx)
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
// counts anew what is there. It says how many files had expired. There must be
// one sweep at a time.
func (s *Store) Sweep(ctx context.Context) (int, error) {
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
		if found.known[object.Key] || time.Since(object.ModTime) <= orphanAge || s.isHeld(object.Key) {
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
