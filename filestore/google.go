//go:build gs

package filestore

import (
	"context"
	"net/url"
	"os"

	"gocloud.dev/blob"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
)

const hasGoogle = true

func registerGoogle(openers *blob.URLMux) { openers.RegisterBucket(googleScheme, googleOpener{}) }

// googleOpener opens buckets at Google with the application's default credentials.
// Without credentials it fails; the library's own opener prints a warning to stdout and
// continues.
type googleOpener struct{}

// OpenBucketURL implements [blob.BucketURLOpener].
func (googleOpener) OpenBucketURL(ctx context.Context, address *url.URL) (*blob.Bucket, error) {
	opener := gcsblob.URLOpener{Client: gcp.NewAnonymousHTTPClient(gcp.DefaultTransport())}
	if address.Query().Get("anonymous") == "" && os.Getenv("STORAGE_EMULATOR_HOST") == "" {
		credentials, err := gcp.DefaultCredentials(ctx)
		if err != nil {
			return nil, err
		}
		opener.TokenSource = credentials.TokenSource
		if opener.Client, err = gcp.NewHTTPClient(gcp.DefaultTransport(), credentials.TokenSource); err != nil {
			return nil, err
		}
	}
	return opener.OpenBucketURL(ctx, address)
}
