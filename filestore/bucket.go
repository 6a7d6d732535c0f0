package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/s3blob"

	"github.com/vivarium-sandbox/vivarium/internal/folder"
)

const googleScheme = "gs"

// openTime bounds the first request to an object store, retries included.
const openTime = 30 * time.Second

// CheckURL returns an error if the URL of a store is not valid. It does not open the
// store.
func CheckURL(address string) error {
	_, err := parseURL(address)
	return err
}

func parseURL(address string) (*url.URL, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the URL cannot be parsed") // the cause repeats the URL, with its secrets
	}
	switch bucket := parsed.Host; {
	case parsed.Scheme == fileblob.Scheme && bucket == "" && parsed.RawQuery == "" && filepath.IsAbs(parsed.Path):
		return parsed, nil
	case (parsed.Scheme == s3blob.Scheme || parsed.Scheme == googleScheme) && bucket != "":
		return parsed, checkObjects(parsed)
	}
	return nil, fmt.Errorf("the URL is %q: must be file:///FOLDER, s3://BUCKET or gs://BUCKET", parsed.Redacted())
}

func checkObjects(address *url.URL) error {
	if address.User != nil || strings.Trim(address.Path, "/") != "" || address.Query().Has("key") {
		return fmt.Errorf("the URL is %q: must not have credentials, a path or a key; use prefix= instead of a path", address.Redacted())
	}
	if address.Scheme == googleScheme && !hasGoogle {
		return errors.New("this binary was built without gs://; build it with -tags gs, or use the server's image")
	}
	return nil
}

// openBucket opens the bucket at a URL. It also returns the path of a bucket that is a
// folder, and "" for an object store.
func openBucket(ctx context.Context, address string) (*blob.Bucket, string, error) {
	parsed, err := parseURL(address)
	if err != nil {
		return nil, "", err
	}
	if parsed.Scheme == fileblob.Scheme {
		return openFolder(parsed.Path)
	}
	opened, err := openObjects(ctx, parsed)
	return opened, "", err
}

// openFolder opens a folder, which it creates if it is missing, and returns its real
// path. No other user may write to it: links of theirs would make the server read files
// of their choice.
func openFolder(path string) (*blob.Bucket, string, error) {
	root, err := folder.Make(path, folder.NoWriters)
	if err != nil {
		return nil, "", err
	}
	if err := checkContents(root); err != nil {
		return nil, "", err
	}
	bucket, err := fileblob.OpenBucket(root, &fileblob.Options{
		NoTempDir: true,                       // so that a rename stays in one file system
		Metadata:  fileblob.MetadataDontWrite, // ours is an object
	})
	return bucket, root, err
}

// openObjects opens a bucket of an object store and checks that it answers.
func openObjects(ctx context.Context, address *url.URL) (*blob.Bucket, error) {
	var openers blob.URLMux // not the library's global one, to which any package may add
	openers.RegisterBucket(s3blob.Scheme, &s3blob.URLOpener{})
	registerGoogle(&openers)
	bucket, err := openers.OpenBucketURL(context.WithoutCancel(ctx), address) // the bucket outlives this call and renews its credentials
	if err != nil {
		return nil, err
	}
	if err := checkAccess(ctx, bucket); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", address, err), bucket.Close())
	}
	return bucket, nil
}

// checkAccess returns an error if a bucket cannot be used.
func checkAccess(ctx context.Context, bucket *blob.Bucket) error {
	ctx, cancel := context.WithTimeoutCause(ctx, openTime, fmt.Errorf("it does not answer within %v", openTime))
	defer cancel()
	there, err := bucket.IsAccessible(ctx)
	switch {
	case err != nil:
		return errors.Join(context.Cause(ctx), err)
	case !there:
		return errors.New("there is no such bucket")
	}
	return nil
}

// checkContents returns an error if another user created an entry in the folder of a
// store. The folder must be closed to other users before, so that later reads may follow
// the paths of files.
func checkContents(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if isOwnersFolder(name + "/") {
			err = checkOwnersFolder(root, name)
		} else {
			err = checkObject(root, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func checkOwnersFolder(root, name string) error {
	if err := folder.Check(filepath.Join(root, name), folder.NoWriters); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(root, name))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := checkObject(root, name+"/"+entry.Name()); err != nil {
			return err
		}
	}
	return nil
}

// checkObject checks a file, if it has a name that the store reads.
func checkObject(root, key string) error {
	if _, _, ours := cutKey(key); !ours {
		return nil
	}
	err := folder.CheckFile(filepath.Join(root, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another server has deleted it
	}
	return err
}
