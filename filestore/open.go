package filestore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"gocloud.dev/blob"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Open opens the store and counts what is in it.
func Open(ctx context.Context, opts Options) (*Store, error) {
	s := OpenLazily(ctx, opts, nil)
	if err := s.ready(); err != nil {
		return nil, err
	}
	return s, nil
}

// OpenLazily returns a store that its first use opens. ctx bounds the opening, not
// the use of the store. An error of the opening is final: each use returns it.
//
// around, unless nil, is called instead of the opening and must call open once. It can
// prepare the process, and explain an error.
func OpenLazily(ctx context.Context, opts Options, around func(open func() error) error) *Store {
	s := newStore(opts)
	s.open = sync.OnceValue(func() error {
		open := func() error { return s.openURL(ctx) }
		if around != nil {
			return around(open)
		}
		return open()
	})
	return s
}

func newStore(opts Options) *Store {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{
		opts: opts, lists: execution.NewOwnerSemaphore(listsAtOnce),
		holds: make(map[string]*hold), unreadable: make(map[string]bool),
	}
}

// ready opens the store unless that was done before. Each method that reads or
// writes the bucket calls it first.
func (s *Store) ready() error {
	s.used.Store(true)
	return s.open()
}

// isOpen reports whether the store was opened. It waits for an opening in progress and
// starts none.
func (s *Store) isOpen() bool { return s.used.Load() && s.open() == nil }

func (s *Store) openURL(ctx context.Context) error {
	bucket, folder, err := openBucket(ctx, s.opts.URL)
	if err != nil {
		return fmt.Errorf("file store: %w", err)
	}
	return s.openWith(ctx, bucket, folder)
}

// openWith takes over an open bucket and counts what is in it.
func (s *Store) openWith(ctx context.Context, bucket *blob.Bucket, folder string) error {
	s.bucket, s.folder = bucket, folder
	if _, err := s.recount(ctx); err != nil {
		return errors.Join(err, bucket.Close())
	}
	return nil
}

// Close closes the bucket if it was opened. No method may be called after it.
func (s *Store) Close() error {
	if !s.isOpen() {
		return nil
	}
	return s.bucket.Close()
}
