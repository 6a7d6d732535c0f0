package filestore

import (
	"context"

	"gocloud.dev/blob"
)

// OpenBucket makes a store of a bucket that is no folder.
func OpenBucket(ctx context.Context, bucket *blob.Bucket, opts Options) (*Store, error) {
	return newStore(ctx, bucket, "", opts)
}
