package filestore

import (
	"context"
	"sync"

	"gocloud.dev/blob"
)

// OpenBucket returns a store in a bucket that is not a folder.
func OpenBucket(ctx context.Context, bucket *blob.Bucket, opts Options) (*Store, error) {
	s := newStore(opts)
	s.open = sync.OnceValue(func() error { return s.openWith(ctx, bucket, "") })
	return s, s.ready()
}

// TakeTurn takes one of the slots for lists of the request's owner.
func (s *Store) TakeTurn(ctx context.Context) (leave func(), err error) { return s.lists.Acquire(ctx) }

// Explain turns an error of the disk into one for users.
func (s *Store) Explain(err error) error { return s.explain(err) }
