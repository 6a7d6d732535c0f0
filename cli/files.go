package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

// sweepFilesEvery is how often expired files are removed. They cannot be read in
// any case.
const sweepFilesEvery = time.Minute

// openFiles opens the file store that the settings name.
func openFiles(ctx context.Context, c config.Config, log *slog.Logger) (*filestore.Store, error) {
	files, err := filestore.Open(ctx, storeOptions(c, log))
	return files, nameStorage(c, err)
}

// openFilesLazily returns a store that its first use opens. `vivarium stdio` serves
// a client that waits for it to start, and looking through a bucket takes time.
func openFilesLazily(ctx context.Context, c config.Config, log *slog.Logger) *filestore.Store {
	return filestore.OpenLazily(context.WithoutCancel(ctx), storeOptions(c, log), func(open func() error) error {
		if c.FileStorageURL != "" {
			if err := trustBundledRoots(); err != nil {
				return err
			}
		}
		return nameStorage(c, open())
	})
}

func storeOptions(c config.Config, log *slog.Logger) filestore.Options {
	_, address := storage(c)
	return filestore.Options{
		URL:          address,
		MaxFileBytes: int64(c.MaxFileSizeMB) << 20, MaxBytes: int64(c.FileStoreMaxMB) << 20,
		TTL: seconds(c.FileTTLSec), Log: log,
	}
}

// nameStorage puts the setting in front of an error of opening the store.
func nameStorage(c config.Config, err error) error {
	if err == nil {
		return nil
	}
	setting, _ := storage(c)
	return fmt.Errorf("%s: %w", setting, explainStorage(err))
}

// checkStorage rejects a bucket that this binary cannot open, at the start of every
// command: stdio opens the store only on its first use.
func checkStorage(c config.Config) error {
	if c.FileStorageURL == "" {
		return nil
	}
	if err := filestore.CheckURL(c.FileStorageURL); err != nil {
		return fmt.Errorf("FILE_STORAGE_URL: %w", err)
	}
	return nil
}

// storage returns the URL of the file store, and the setting that names it.
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

// sweepFiles returns a task that removes expired files regularly until ctx ends.
func sweepFiles(files *filestore.Store, log *slog.Logger) func(context.Context) {
	return func(ctx context.Context) {
		ticker := time.NewTicker(sweepFilesEvery)
		defer ticker.Stop()
		for {
			if _, err := files.Sweep(ctx); err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "removing expired files failed", "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}
}
