package filestore

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
)

// openBucket opens the bucket at a URL, and gives the folder that it is.
func openBucket(address string) (*blob.Bucket, string, error) {
	parsed, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("file store: %w", err)
	case parsed.Scheme != fileblob.Scheme || parsed.Host != "" || !filepath.IsAbs(parsed.Path):
		return nil, "", fmt.Errorf("file store: the URL is %q: must be file:///FOLDER", parsed.Redacted())
	}
	folder := filepath.Clean(parsed.Path)
	if err := makeFolder(folder); err != nil {
		return nil, "", fmt.Errorf("file store: %w", err)
	}
	bucket, err := fileblob.OpenBucket(folder, &fileblob.Options{
		NoTempDir: true,                       // a rename does not cross file systems
		Metadata:  fileblob.MetadataDontWrite, // we keep our own
	})
	if err != nil {
		return nil, "", fmt.Errorf("file store: %w", err)
	}
	return bucket, folder, nil
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
	return nil
}
