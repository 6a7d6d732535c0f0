package filestore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

// lazily returns a store in a folder that does not exist yet, the folder, and how
// often it was opened.
func lazily(t *testing.T) (s *filestore.Store, folder string, opened func() int) {
	t.Helper()
	folder = filepath.Join(t.TempDir(), "store")
	n := 0 // the store's lock guards it
	opts := filestore.Options{URL: "file://" + folder, MaxFileBytes: 1 << 20, MaxBytes: 1 << 20, TTL: time.Hour}
	s = filestore.OpenLazily(t.Context(), opts, func(open func() error) error {
		n++
		return open()
	})
	return s, folder, func() int { return n }
}

func TestLazyStoreOpensOnceOnFirstUse(t *testing.T) {
	s, folder, opened := lazily(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { put(t, s, "a", "x") })
	}
	all.Wait()
	if files, err := s.List(t.Context()); len(files) != 8 || err != nil || opened() != 1 {
		t.Errorf("%d files, %v; it was opened %d times", len(files), err, opened())
	}
	if _, err := s.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(folder); err != nil {
		t.Error(err)
	}
}

func TestLazyStoreIsNotOpenedByItsEnd(t *testing.T) {
	s, folder, opened := lazily(t)
	if n, err := s.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) || opened() != 0 {
		t.Errorf("it was opened: %v", err)
	}
}

// Each method that can be the first one opens the store. Each returns the error of the
// opening as around explained it. Sweep and Close do not return it.
func TestLazyStoreReturnsItsOpeningError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const id = "0123456789abcdef0123456789abcdef"
	for name, use := range map[string]func(*filestore.Store) error{
		"Put":    func(s *filestore.Store) error { _, err := s.Put(t.Context(), "a", strings.NewReader("x")); return err },
		"Stat":   func(s *filestore.Store) error { _, err := s.Stat(t.Context(), id); return err },
		"Get":    func(s *filestore.Store) error { _, err := s.Get(t.Context(), id); return err },
		"Hold":   func(s *filestore.Store) error { _, err := s.Hold(t.Context(), id); return err },
		"Delete": func(s *filestore.Store) error { return s.Delete(t.Context(), id) },
		"List":   func(s *filestore.Store) error { _, err := s.List(t.Context()); return err },
	} {
		opts := filestore.Options{URL: "file://" + file, MaxFileBytes: 1, MaxBytes: 1}
		s := filestore.OpenLazily(t.Context(), opts, func(open func() error) error { return fmt.Errorf("SETTING: %w", open()) })
		for range 2 {
			if err := use(s); err == nil || !strings.HasPrefix(err.Error(), "SETTING: file store: ") || code(err) != execution.Internal {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := s.Sweep(t.Context()); err != nil {
			t.Errorf("%s: the sweep: %v", name, err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: the end: %v", name, err)
		}
	}
}
