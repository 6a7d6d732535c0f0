package filestore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/memblob"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

// place is where files are kept; any number of stores may stand on it.
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

// open opens a store, as a server of its own would.
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

// What goes in comes out, whatever it is, and after a restart too.
func TestFilesLast(t *testing.T) { everywhere(t, filesLast) }

func filesLast(t *testing.T, at place) {
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

func TestIDsThatAreNone(t *testing.T) { everywhere(t, idsThatAreNone) }

func idsThatAreNone(t *testing.T, at place) {
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
		t.Errorf("it can still be had: %v", err)
	}
	if err := s.Delete(t.Context(), info.ID); code(err) != execution.NotFound {
		t.Errorf("it can be deleted twice: %v", err)
	}
	data, err := io.ReadAll(reading)
	if err := errors.Join(err, reading.Close()); err != nil || string(data) != "content" {
		t.Errorf("who reads it gets %q, %v", data, err)
	}
	if n := at.entries(t); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

// A file that is held can be read as often as one likes, until it is released,
// whoever deletes it.
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

// Who comes while a file goes finds it whole or not at all.
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

// An upload that fails leaves nothing, and takes no room.
func TestFailedUploads(t *testing.T) { everywhere(t, failedUploads) }

func failedUploads(t *testing.T, at place) {
	t.Helper()
	s := at.open(t, nil)
	broken := errors.New("the client has gone")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	large := bytes.Repeat([]byte("x"), 1<<20+1)
	for range 5 { // more than there is room for
		if _, err := s.Put(t.Context(), "a", io.MultiReader(bytes.NewReader(large[:1<<20]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
			t.Errorf("broken: %v", err)
		}
		if _, err := s.Put(t.Context(), "a", bytes.NewReader(large)); code(err) != execution.TooLarge || err.Error() != "File size exceeds maximum of 1 MB" {
			t.Errorf("too large: %v", err)
		}
		if _, err := s.Put(cancelled, "a", strings.NewReader("x")); err == nil {
			t.Error("cancelled: no error")
		}
	}
	if n := at.entries(t); n != 0 {
		t.Errorf("%d objects are left", n)
	}
	var last filestore.Info
	for range 3 {
		last = put(t, s, "a", string(large[1:]))
	}
	if _, err := s.Put(t.Context(), "a", strings.NewReader("x")); code(err) != execution.StoreFull {
		t.Errorf("full: %v", err)
	}
	if _, err := at.open(t, nil).Put(t.Context(), "a", strings.NewReader("x")); code(err) != execution.StoreFull {
		t.Errorf("full, after a restart: %v", err)
	}
	if err := s.Delete(t.Context(), last.ID); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "there is room again")
}

// What the disk refuses has a sentence that says what to do. See TestLocalDiskFull and
// TestLocalReadOnlyDisk in integration for the disks themselves.
func TestDiskRefuses(t *testing.T) {
	s := place{folder: t.TempDir()}.open(t, nil)
	for cause, want := range map[error]execution.Code{
		syscall.ENOSPC: execution.StoreFull, syscall.EDQUOT: execution.StoreFull,
		syscall.EROFS: execution.Unavailable, syscall.EACCES: execution.Unavailable,
		syscall.EIO: execution.Internal,
		&execution.Error{Code: execution.Cancelled, Err: syscall.ENOSPC}: execution.Cancelled,
	} {
		if err := s.Explain(fmt.Errorf("write: %w", cause)); code(err) != want || !errors.Is(err, cause) {
			t.Errorf("%v: %v", cause, err)
		}
	}
}

// However small files are, there is room for so many and no more.
func TestSmallFilesTakeRoom(t *testing.T) { everywhere(t, smallFilesTakeRoom) }

func smallFilesTakeRoom(t *testing.T, at place) {
	t.Helper()
	small := func(o *filestore.Options) { o.MaxBytes = 5*4096 + 1 }
	s := at.open(t, small)
	var last filestore.Info
	for _, content := range []string{"", "x", "", strings.Repeat("x", 4096), strings.Repeat("x", 4097)} {
		last = put(t, s, "a", content)
	}
	for name, store := range map[string]*filestore.Store{"full": s, "full, after a restart": at.open(t, small)} {
		if _, err := store.Put(t.Context(), "a", strings.NewReader("")); code(err) != execution.StoreFull {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := at.entries(t); n != 10 {
		t.Errorf("there are %d objects", n)
	}
	if err := s.Delete(t.Context(), last.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", strings.Repeat("x", 4097))
}

// shortReader gives up with an error of which io.EOF is the cause, as the readers
// of forms do.
type shortReader struct{ io.Reader }

func (r shortReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil {
		err = fmt.Errorf("the form is cut short: %w", err)
	}
	return n, err
}

// What ends before its end is not stored, and its reader's word on it comes back.
func TestUploadsCutShort(t *testing.T) { everywhere(t, uploadsCutShort) }

func uploadsCutShort(t *testing.T, at place) {
	t.Helper()
	s := at.open(t, nil)
	if info, err := s.Put(t.Context(), "a", shortReader{strings.NewReader("half")}); err == nil || err.Error() != "the form is cut short: EOF" {
		t.Errorf("it is stored as %+v, %v", info, err)
	}
	if n := at.entries(t); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

// endingReader ends its caller's context at its own end.
type endingReader struct {
	io.Reader
	end context.CancelCauseFunc
}

var errGone = errors.New("the client has gone")

func (r endingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil {
		r.end(errGone)
	}
	return n, err
}

// A caller who leaves is no fault of ours, whatever the store was doing.
func TestCallersWhoLeave(t *testing.T) { everywhere(t, callersWhoLeave) }

func callersWhoLeave(t *testing.T, at place) {
	t.Helper()
	s := at.open(t, nil)
	want := func(what string, err error) {
		t.Helper()
		if code(err) != execution.Cancelled || !errors.Is(err, errGone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ctx, leave := context.WithCancelCause(t.Context())
	_, err := s.Put(ctx, "a", endingReader{strings.NewReader("all of it"), leave})
	want("at the last byte", err)
	if n := at.entries(t); n != 0 {
		t.Errorf("%d objects are left", n)
	}
	_, err = s.Put(ctx, "a", strings.NewReader("x"))
	want("before", err)
}

func TestExpiry(t *testing.T) { everywhere(t, expires) }

func expires(t *testing.T, at place) {
	t.Helper()
	old := put(t, at.open(t, nil), "old", "x")
	held := put(t, at.open(t, nil), "held", "in use")
	s := at.open(t, func(o *filestore.Options) { o.TTL = time.Hour })
	reading, err := s.Get(t.Context(), held.ID)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Sweep(t.Context()); n != 0 || err != nil {
		t.Fatalf("%d files of an age of nothing have expired: %v", n, err)
	}
	for _, id := range []string{old.ID, held.ID} {
		at.backdate(t, id)
	}
	if _, err := s.Get(t.Context(), old.ID); code(err) != execution.NotFound {
		t.Errorf("expired, and not swept yet: %v", err)
	}
	if files, err := s.List(t.Context()); len(files) != 0 || err != nil {
		t.Errorf("listed: %+v, %v", files, err)
	}
	if n, err := s.Sweep(t.Context()); n != 2 || err != nil {
		t.Errorf("%d have expired: %v", n, err)
	}
	if n := at.entries(t); n != 2 {
		t.Errorf("%d objects: the two of the file in use must stay", n)
	}
	data, err := io.ReadAll(reading)
	if err := errors.Join(err, reading.Close()); err != nil || string(data) != "in use" {
		t.Errorf("who reads it gets %q, %v", data, err)
	}
	if n := at.entries(t); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

// backdate makes a file two hours old.
func (at place) backdate(t *testing.T, id string) {
	t.Helper()
	key := at.keys(t, id+".json")[0]
	data, err := at.bucket.ReadAll(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	var info filestore.Info
	if err := json.Unmarshal(data, &info); err != nil {
		t.Fatal(err)
	}
	info.Uploaded = info.Uploaded.Add(-2 * time.Hour)
	if data, err = json.Marshal(info); err != nil {
		t.Fatal(err)
	}
	if err := at.bucket.WriteAll(t.Context(), key, data, nil); err != nil {
		t.Fatal(err)
	}
}

// What a server that was killed has left goes, what is not ours stays.
func TestOrphans(t *testing.T) {
	at := inFolder(t)
	folder := at.folder
	const id = "0123456789abcdef0123456789abcdef"
	hours := time.Now().Add(-2 * time.Hour)
	for name, when := range map[string]time.Time{
		id: hours, id + ".17f.tmp": hours, id[:31] + "0": time.Now(), "notes.txt": hours,
	} {
		path := filepath.Join(folder, name)
		if err := errors.Join(os.WriteFile(path, []byte("x"), 0o600), os.Chtimes(path, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	s := at.open(t, nil)
	kept := put(t, s, "kept", "x")
	if err := os.Chtimes(filepath.Join(folder, kept.ID), hours, hours); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := at.entries(t); n != 4 { // kept and what is known of it, one too young, one not ours
		t.Errorf("%d objects are left", n)
	}
	if got := read(t, s, kept.ID); got != "x" {
		t.Errorf("the file that was to be kept: %q", got)
	}
}

// A file that is held is no orphan, however old it is and whoever deletes it.
func TestSweepLeavesWhatIsHeld(t *testing.T) {
	at := inFolder(t)
	s := at.open(t, nil)
	info := put(t, s, "a", "content")
	hours := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(filepath.Join(at.folder, info.ID), hours, hours); err != nil {
		t.Fatal(err)
	}
	held, err := s.Hold(t.Context(), info.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := held.Open(t.Context())
	if err != nil {
		t.Fatalf("the sweep took it away: %v", err)
	}
	_ = r.Close()
	held.Release()
	if n := at.entries(t); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

// What cannot be read of one file costs the others nothing. It is told once, and
// left for somebody to look at.
func TestUnreadable(t *testing.T) { everywhere(t, unreadable) }

func unreadable(t *testing.T, at place) {
	t.Helper()
	ids := map[string]string{
		strings.Repeat("a", 32): "{", strings.Repeat("b", 32): "", strings.Repeat("c", 32): `{"id": "another"}`,
	}
	for id, meta := range ids {
		for key, content := range map[string]string{id: "content", id + ".json": meta} {
			if err := at.bucket.WriteAll(t.Context(), key, []byte(content), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if at.folder != "" { // nothing of ours either
		if err := os.Mkdir(filepath.Join(at.folder, strings.Repeat("d", 32)+".json"), 0o700); err != nil {
			t.Fatal(err)
		}
		at.age(t)
	}
	before := at.entries(t)
	var log bytes.Buffer
	s := at.open(t, func(o *filestore.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	good := put(t, s, "good", "x")
	for range 2 {
		if _, err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if files, err := s.List(t.Context()); err != nil || len(files) != 1 || files[0] != good {
		t.Errorf("listed: %+v, %v", files, err)
	}
	if n := at.entries(t); n != before+2 {
		t.Errorf("of %d objects and two %d are left", before, n)
	}
	for id := range ids {
		if _, err := s.Get(t.Context(), id); code(err) != execution.Internal || strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %v", id, err)
		}
	}
	if n := strings.Count(log.String(), "level=WARN"); n != len(ids) {
		t.Errorf("%d warnings:\n%s", n, log.String())
	}
}

// age makes all that is in a folder two hours old.
func (at place) age(t *testing.T) {
	t.Helper()
	hours := time.Now().Add(-2 * time.Hour)
	entries, err := os.ReadDir(at.folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if err := os.Chtimes(filepath.Join(at.folder, entry.Name()), hours, hours); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFoldersThatWillNotDo(t *testing.T) {
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

// Several servers may share a bucket: each learns at its sweeps how full it is.
func TestSharedBucket(t *testing.T) { everywhere(t, sharedBucket) }

func sharedBucket(t *testing.T, at place) {
	t.Helper()
	ours, theirs := at.open(t, nil), at.open(t, nil)
	mega := strings.Repeat("x", 1<<20)
	first := put(t, theirs, "a", mega)
	put(t, theirs, "b", mega)
	put(t, theirs, "c", mega)
	if _, err := ours.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Put(t.Context(), "d", strings.NewReader("x")); code(err) != execution.StoreFull {
		t.Errorf("what others stored does not count: %v", err)
	}
	reading, err := ours.Get(t.Context(), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := ours.Delete(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Put(t.Context(), "d", strings.NewReader("x")); code(err) != execution.StoreFull {
		t.Errorf("what somebody still reads does not count: %v", err)
	}
	if err := reading.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, ours, "d", mega)
	if _, err := ours.Put(t.Context(), "e", strings.NewReader("x")); code(err) != execution.StoreFull {
		t.Errorf("the room was given back twice: %v", err)
	}
}

// Deleting what another server has stored since the last sweep makes no room
// that was never taken.
func TestDeleteWhatWasNotCounted(t *testing.T) { everywhere(t, deletesWhatWasNotCounted) }

func deletesWhatWasNotCounted(t *testing.T, at place) {
	t.Helper()
	ours, theirs := at.open(t, nil), at.open(t, nil)
	mega := strings.Repeat("x", 1<<20)
	if err := ours.Delete(t.Context(), put(t, theirs, "a", mega).ID); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		put(t, ours, "b", mega)
	}
	if _, err := ours.Put(t.Context(), "c", strings.NewReader("x")); code(err) != execution.StoreFull {
		t.Errorf("3 MB of 3: %v", err)
	}
}

// sweepReader sweeps in the middle of an upload.
type sweepReader struct {
	t     *testing.T
	store *filestore.Store
	r     io.Reader
}

func (s sweepReader) Read(p []byte) (int, error) {
	if _, err := s.store.Sweep(s.t.Context()); err != nil {
		s.t.Error(err)
	}
	return s.r.Read(p)
}

// What is being written is counted once, whatever a sweep sees of it.
func TestSweepWhileWriting(t *testing.T) { everywhere(t, sweepWhileWriting) }

func sweepWhileWriting(t *testing.T, at place) {
	t.Helper()
	s := at.open(t, nil)
	chunk := strings.Repeat("x", 1<<19)
	for range 3 {
		parts := io.MultiReader(sweepReader{t, s, strings.NewReader(chunk)}, sweepReader{t, s, strings.NewReader(chunk)})
		if _, err := s.Put(t.Context(), "a", parts); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Put(t.Context(), "a", strings.NewReader("x")); code(err) != execution.StoreFull {
		t.Errorf("3 MB of 3: %v", err)
	}
	files, err := s.List(t.Context())
	if err != nil || len(files) != 3 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		if err := s.Delete(t.Context(), file.ID); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		put(t, s, "a", chunk+chunk)
	}
}

// Files that go while they are listed are no fault of the list's.
func TestListWhileFilesGo(t *testing.T) { everywhere(t, listsWhileFilesGo) }

func listsWhileFilesGo(t *testing.T, at place) {
	t.Helper()
	s := at.open(t, nil)
	other := at.open(t, nil) // as of another server
	var both sync.WaitGroup
	over := make(chan struct{})
	for range 2 {
		both.Go(func() {
			for range 100 {
				info := put(t, other, "a", "content")
				if err := other.Delete(t.Context(), info.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() {
		both.Wait()
		close(over)
	}()
	for {
		if _, err := s.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-over:
			return
		default:
		}
	}
}
