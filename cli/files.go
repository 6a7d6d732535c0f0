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

// sweepFilesEvery is how often expired files are looked for. Nobody can get one
// in any case.
const sweepFilesEvery = time.Minute

// openFiles opens the file store that the settings name.
func openFiles(ctx context.Context, c config.Config, log *slog.Logger) (*filestore.Store, error) {
	if c.FileStorageURL != "" {
		if err := trustBundledRoots(); err != nil {
			return nil, err
		}
	}
	setting, address := storage(c)
	files, err := filestore.Open(ctx, filestore.Options{
		URL:          address,
		MaxFileBytes: int64(c.MaxFileSizeMB) << 20, MaxBytes: int64(c.FileStoreMaxMB) << 20,
		TTL: seconds(c.FileTTLSec), Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return files, nil
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
