package filestore

import (
	"context"
	"sync"

	"gocloud.dev/blob"
)

// OpenBucket makes a store of a bucket that is no folder.
func OpenBucket(ctx context.Context, bucket *blob.Bucket, opts Options) (*Store, error) {
	s := newStore(opts)
	s.open = sync.OnceValue(func() error { return s.openWith(ctx, bucket, "") })
	return s, s.ready()
}

// TakeTurn takes one of the turns of the request's owner to list.
func (s *Store) TakeTurn(ctx context.Context) (leave func(), err error) { return s.lists.Take(ctx) }

// Explain says what an error of the disk means.
func (s *Store) Explain(err error) error { return s.explain(err) }
