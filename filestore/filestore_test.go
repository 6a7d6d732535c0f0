package filestore_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/memblob"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

// place is a bucket; any number of stores may use it.
type place struct {
	folder string // "" where it is none
	bucket *blob.Bucket
}

// everywhere runs a test on each kind of bucket.
func everywhere(t *testing.T, test func(t *testing.T, at place)) {
	t.Helper()
	t.Run("folder", func(t *testing.T) { test(t, inFolder(t)) })
	t.Run("objects", func(t *testing.T) {
		bucket := memblob.OpenBucket(nil)
		t.Cleanup(func() { _ = bucket.Close() })
		test(t, place{bucket: bucket})
	})
}

func inFolder(t *testing.T) place {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "made", "store")
	bucket, err := fileblob.OpenBucket(folder, &fileblob.Options{CreateDir: true, DirFileMode: 0o700, Metadata: fileblob.MetadataDontWrite})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bucket.Close() })
	return place{folder: folder, bucket: bucket}
}

// open opens another store in the bucket, as another server would.
func (at place) open(t *testing.T, change func(*filestore.Options)) *filestore.Store {
	t.Helper()
	opts := filestore.Options{URL: "file://" + at.folder, MaxFileBytes: 1 << 20, MaxBytes: 3 << 20}
	if change != nil {
		change(&opts)
	}
	if at.folder == "" {
		s, err := filestore.OpenBucket(t.Context(), at.bucket, opts)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s, err := filestore.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func put(t *testing.T, s *filestore.Store, name, content string) filestore.Info {
	t.Helper()
	info, err := s.Put(t.Context(), name, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func read(t *testing.T, s *filestore.Store, id string) string {
	t.Helper()
	f, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func code(err error) execution.Code {
	if err == nil {
		return ""
	}
	return execution.AsError(err).Code
}

// entries counts the objects.
func (at place) entries(t *testing.T) int {
	t.Helper()
	if at.folder != "" { // what an upload has left there has a name that the bucket hides
		list, err := os.ReadDir(at.folder)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	n := 0
	for objects := at.bucket.List(nil); ; n++ {
		if _, err := objects.Next(t.Context()); errors.Is(err, io.EOF) {
			return n
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A stored file is returned unchanged, after a restart too.
func TestFilesAreStoredUnchanged(t *testing.T) { everywhere(t, storesUnchanged) }

func storesUnchanged(t *testing.T, at place) {
	t.Helper()
	s := at.open(t, nil)
	for name, content := range map[string]string{
		"plain.txt": "hello", "empty": "", "../../etc/passwd": "a path for a name", `q"uote;ä` + "\n\xff": "\x00\xff\r\n",
		"large": strings.Repeat("0123456789abcdef", 1<<16),
	} {
		info := put(t, s, name, content)
		again := at.open(t, nil)
		known, err := again.Stat(t.Context(), info.ID)
		if err != nil || known.Name != strings.ToValidUTF8(name, "�") || known.Size != int64(len(content)) || !known.Uploaded.Equal(info.Uploaded) {
			t.Errorf("%q: %+v, %v; stored as %+v", name, known, err, info)
		}
		if got := read(t, again, info.ID); got != content {
			t.Errorf("%q: %d bytes came back: %.40q", name, len(got), got)
		}
	}
	files, err := s.List(t.Context())
	if err != nil || len(files) != 5 {
		t.Errorf("listed: %+v, %v", files, err)
	}
}

func TestInvalidIDs(t *testing.T) { everywhere(t, refusesInvalidIDs) }

func refusesInvalidIDs(t *testing.T, at place) {
	t.Helper()
	s := at.open(t, nil)
	info := put(t, s, "a", "x")
	if at.folder != "" {
		if err := os.WriteFile(filepath.Join(filepath.Dir(at.folder), "secret.json"), []byte(`{"id":"../secret"}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{
		"", "x", "../secret", info.ID + ".json", info.ID[:31], info.ID + "0", strings.ToUpper(info.ID) + " ",
		"0123456789abcdef0123456789abcdef", strings.Repeat("a", 10000), "é", "\x00", "%2e%2e%2fsecret",
	} {
		_, getErr := s.Get(t.Context(), id)
		if code(getErr) != execution.NotFound || code(s.Delete(t.Context(), id)) != execution.NotFound {
			t.Errorf("%.50q: %v", id, getErr)
		}
		if len(getErr.Error()) > 300 {
			t.Errorf("the error repeats all %d bytes of an id", len(id))
		}
	}
}

func TestDelete(t *testing.T) { everywhere(t, deletes) }

func deletes(t *testing.T, at place) {
	t.Helper()
	s := at.open(t, nil)
	info := put(t, s, "a", "content")
	reading, err := s.Get(t.Context(), info.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), info.ID); code(err) != execution.NotFound {
		t.Errorf("it is still found: %v", err)
	}
	if err := s.Delete(t.Context(), info.ID); code(err) != execution.NotFound {
		t.Errorf("it can be deleted twice: %v", err)
	}
	data, err := io.ReadAll(reading)
	if err := errors.Join(err, reading.Close()); err != nil || string(data) != "content" {
		t.Errorf("its reader read %q, %v", data, err)
	}
	if n := at.entries(t); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

// A held file can be read any number of times until it is released, even if it is
// deleted.
func TestHold(t *testing.T) { everywhere(t, holds) }

func holds(t *testing.T, at place) {
	t.Helper()
	s := at.open(t, nil)
	info := put(t, s, "a", "content")
	held, err := s.Hold(t.Context(), info.ID)
	if err != nil || held.Info != info {
		t.Fatalf("%+v, %v", held, err)
	}
	if err := s.Delete(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := held.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || string(data) != "content" {
			t.Errorf("%q, %v", data, err)
		}
	}
	if _, err := s.Hold(t.Context(), info.ID); code(err) != execution.NotFound {
		t.Errorf("a deleted file can be held: %v", err)
	}
	held.Release()
	held.Release()
	if n := at.entries(t); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

// A request that holds a file while another deletes it finds it whole or not at all.
func TestHoldWhileItIsDeleted(t *testing.T) { everywhere(t, holdsWhileItIsDeleted) }

func holdsWhileItIsDeleted(t *testing.T, at place) {
	t.Helper()
	s := at.open(t, nil)
	for range 100 {
		info := put(t, s, "a", "content")
		var both sync.WaitGroup
		both.Go(func() {
			if err := s.Delete(t.Context(), info.ID); err != nil {
				t.Error(err)
			}
		})
		both.Go(func() {
			held, err := s.Hold(t.Context(), info.ID)
			if err != nil {
				if code(err) != execution.NotFound {
					t.Error(err)
				}
				return
			}
			defer held.Release()
			r, err := held.Open(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			_ = r.Close()
		})
		both.Wait()
	}
	if n := at.entries(t); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

func TestInvalidURLs(t *testing.T) {
	folder := t.TempDir()
	file, link := filepath.Join(folder, "file"), filepath.Join(folder, "link")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(folder, link)); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{
		"", "relative", "file://relative/x", "file:///tmp?prefix=x", "ftp://x/y", "s3://", "s3://key:secret@bucket", "s3://bucket/folder", "s3://bucket?no=such", "%zz://",
		"file://" + file, "file://" + link, "file:///proc/none",
	} {
		if s, err := filestore.Open(t.Context(), filestore.Options{URL: url, MaxFileBytes: 1, MaxBytes: 1}); err == nil {
			t.Errorf("%q: no error", url)
			_ = s.Close()
		}
	}
}
