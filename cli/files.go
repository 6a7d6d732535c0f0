package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

// sweepFilesEvery is how often expired files are looked for. Nobody can get one
// in any case.
const sweepFilesEvery = time.Minute

// openFiles opens the file store that the settings name.
func openFiles(ctx context.Context, c config.Config, log *slog.Logger) (*filestore.Store, error) {
	setting, address := storage(c)
	files, err := filestore.Open(ctx, filestore.Options{
		URL:          address,
		MaxFileBytes: int64(c.MaxFileSizeMB) << 20, MaxBytes: int64(c.FileStoreMaxMB) << 20,
		TTL: seconds(c.FileTTLSec), Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, explainStorage(err))
	}
	return files, nil
}

// checkStorage refuses a bucket that this binary cannot open: stdio opens it only
// when the first file is written.
func checkStorage(c config.Config) error {
	if c.FileStorageURL == "" {
		return nil
	}
	if err := filestore.CheckURL(c.FileStorageURL); err != nil {
		return fmt.Errorf("FILE_STORAGE_URL: %w", err)
	}
	return nil
}

// storage gives the URL of the file store, and the setting that names it.
func storage(c config.Config) (setting, address string) {
	if c.FileStorageURL != "" {
		return "FILE_STORAGE_URL", c.FileStorageURL
	}
	folder := c.FileStorageDir
	if folder == "" {
		folder = filepath.Join(os.TempDir(), fmt.Sprintf("vivarium-files-%d", os.Geteuid()))
	}
	return "FILE_STORAGE_DIR", (&url.URL{Scheme: "file", Path: folder}).String()
}

// lateFiles is a file store that is opened when it is first asked for: who serves
// one client that has just started it has no time to look through a bucket.
type lateFiles struct {
	open func() (*filestore.Store, error) // always the same
	used atomic.Bool
}

func (f *lateFiles) store() (*filestore.Store, error) {
	f.used.Store(true)
	return f.open()
}

// Put implements [filestore.Files].
func (f *lateFiles) Put(ctx context.Context, name string, r io.Reader) (filestore.Info, error) {
	store, err := f.store()
	if err != nil {
		return filestore.Info{}, err
	}
	return store.Put(ctx, name, r)
}

// Hold implements [filestore.Files].
func (f *lateFiles) Hold(ctx context.Context, id string) (*filestore.Held, error) {
	store, err := f.store()
	if err != nil {
		return nil, err
	}
	return store.Hold(ctx, id)
}

// Stat implements [mcp.Files].
func (f *lateFiles) Stat(ctx context.Context, id string) (filestore.Info, error) {
	store, err := f.store()
	if err != nil {
		return filestore.Info{}, err
	}
	return store.Stat(ctx, id)
}

// Get implements [mcp.Files].
func (f *lateFiles) Get(ctx context.Context, id string) (*filestore.File, error) {
	store, err := f.store()
	if err != nil {
		return nil, err
	}
	return store.Get(ctx, id)
}

// Delete implements [filestore.Files].
func (f *lateFiles) Delete(ctx context.Context, id string) error {
	store, err := f.store()
	if err != nil {
		return err
	}
	return store.Delete(ctx, id)
}

// close closes the store, if it was opened, and removes what has expired: nobody
// may do it later. It must be called last.
func (f *lateFiles) close(ctx context.Context) error {
	if !f.used.Load() {
		return nil
	}
	store, err := f.open()
	if err != nil {
		return nil //nolint:nilerr // whoever asked for the store was told
	}
	_, err = store.Sweep(ctx)
	return errors.Join(err, store.Close())
}

// sweepFiles removes files that have expired, now and again, until ctx ends.
func sweepFiles(files *filestore.Store, log *slog.Logger) func(context.Context) {
	return func(ctx context.Context) {
		ticker := time.NewTicker(sweepFilesEvery)
		defer ticker.Stop()
		for {
			if _, err := files.Sweep(ctx); err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "looking for expired files failed", "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}
}
