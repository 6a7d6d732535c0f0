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

// List lists the files, those that have expired left out, in no order. Where ctx
// has ended, its error has code [execution.Cancelled].
func (s *Store) List(ctx context.Context) ([]Info, error) {
	files, _, err := s.survey(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(files, func(info Info) bool { return s.expired(info) || s.isDeleted(info.ID) }), nil
}

// survey reads what is known of all files, and finds the other objects that are
// named as a file's bytes or a part of them are.
func (s *Store) survey(ctx context.Context) (files []Info, others []*blob.ListObject, err error) {
	objects, err := s.objects(ctx)
	if err != nil {
		return nil, nil, err
	}
	const atOnce = 16 // each is a request to an object store
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	var mu sync.Mutex
	for _, object := range objects {
		id, rest, _ := strings.Cut(object.Key, ".")
		switch {
		case !isID(id): // not ours
		case "."+rest != metaSuffix:
			others = append(others, object)
		default:
			group.Go(func() error {
				info, err := s.readMeta(ctx, id)
				if err != nil {
					return ignoreNotFound(err) // it was deleted meanwhile
				}
				mu.Lock()
				defer mu.Unlock()
				files = append(files, info)
				return nil
			})
		}
	}
	return files, others, group.Wait()
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
		case errors.Is(err, os.ErrNotExist):
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
func (s *Store) recount(ctx context.Context) ([]Info, []*blob.ListObject, error) {
	s.usage.startRecount()
	files, others, err := s.survey(ctx)
	if err != nil {
		s.usage.endRecount(nil)
		return nil, nil, err
	}
	seen := s.condemned()
	for _, info := range files {
		seen[info.ID] = info.Size
	}
	s.usage.endRecount(seen)
	return files, others, nil
}

// condemned gives the sizes of the files that are deleted, but not removed, as
// somebody reads them.
func (s *Store) condemned() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	sizes := make(map[string]int64)
	for id, h := range s.holds {
		if h.deleted {
			sizes[id] = h.size
		}
	}
	return sizes
}

// orphanAge is how old an object must be to count as left by a server that
// died while it wrote or deleted the file: no upload takes as long.
const orphanAge = 2 * uploadTime

// Sweep removes the files that have expired and what dead servers have left, and
// counts anew what is there. It says how many files had expired. There must be
// one sweep at a time.
func (s *Store) Sweep(ctx context.Context) (int, error) {
	files, others, err := s.recount(ctx)
	if err != nil {
		return 0, err
	}
	known, expired := make(map[string]bool), 0
	for _, info := range files {
		known[info.ID] = true
		if s.expired(info) {
			s.expire(ctx, info)
			expired++
		}
	}
	for _, object := range others {
		if known[object.Key] || time.Since(object.ModTime) <= orphanAge || s.isHeld(object.Key) {
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
