package filestore

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/s3blob"
	"golang.org/x/sys/unix"
)

const googleScheme = "gs"

// openTime bounds the first request to an object store, retries included.
const openTime = 30 * time.Second

// CheckURL says what is wrong with the URL of a store, as far as that shows
// without opening it.
func CheckURL(address string) error {
	_, err := parseURL(address)
	return err
}

func parseURL(address string) (*url.URL, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the URL cannot be read") // the cause repeats it, secrets and all
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
		return fmt.Errorf("the URL is %q: must have neither credentials, nor a path, nor a key; prefix= may take the path's place", address.Redacted())
	}
	if address.Scheme == googleScheme && !hasGoogle {
		return errors.New("this binary was built without gs://; build it with -tags gs, or take the server's image")
	}
	return nil
}

// openBucket opens the bucket at a URL, and gives the folder that it is, which
// is "" for an object store.
func openBucket(ctx context.Context, address string) (*blob.Bucket, string, error) {
	parsed, err := parseURL(address)
	if err != nil {
		return nil, "", err
	}
	if parsed.Scheme == fileblob.Scheme {
		folder := filepath.Clean(parsed.Path)
		opened, err := openFolder(folder)
		return opened, folder, err
	}
	opened, err := openObjects(ctx, parsed)
	return opened, "", err
}

// openFolder opens a folder, which is made where it is missing.
func openFolder(folder string) (*blob.Bucket, error) {
	if err := makeFolder(folder); err != nil {
		return nil, err
	}
	return fileblob.OpenBucket(folder, &fileblob.Options{
		NoTempDir: true,                       // a rename does not cross file systems
		Metadata:  fileblob.MetadataDontWrite, // we keep our own
	})
}

// openObjects opens a bucket of an object store, and sees whether it answers.
func openObjects(ctx context.Context, address *url.URL) (*blob.Bucket, error) {
	var openers blob.URLMux // not the library's own, to which any package may add
	openers.RegisterBucket(s3blob.Scheme, &s3blob.URLOpener{})
	registerGoogle(&openers)
	bucket, err := openers.OpenBucketURL(context.WithoutCancel(ctx), address) // it outlives this call, and its credentials are renewed
	if err != nil {
		return nil, err
	}
	if err := checkAccess(ctx, bucket); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", address, err), bucket.Close())
	}
	return bucket, nil
}

// checkAccess says what is wrong with a bucket, if anything is.
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

// makeFolder sees to it that a folder is there that is nobody else's: the
// default lies where every user of the machine can make files.
func makeFolder(folder string) error {
	if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil { //nolint:gosec // G301: as mkdir does
		return err
	}
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	status, err := os.Lstat(folder)
	if err != nil {
		return err
	}
	if !status.IsDir() {
		return fmt.Errorf("%s is no folder", folder)
	}
	if owner, ok := status.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user (uid %d)", folder, owner.Uid)
	}
	if err := unix.Access(folder, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("%s cannot be written: %w", folder, err)
	}
	return nil
}
