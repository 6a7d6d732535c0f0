package filestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

// A failed upload leaves no object and takes no room.
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

// An error of the disk becomes one with the right code. TestLocalDiskFull and
// TestLocalReadOnlyDisk in integration use such disks.
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

// The number of small files is bounded.
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

// shortReader fails with an error that wraps io.EOF, as the readers of forms do.
type shortReader struct{ io.Reader }

func (r shortReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil {
		err = fmt.Errorf("the form is cut short: %w", err)
	}
	return n, err
}

// An upload that is cut short is not stored, and its reader's error is returned.
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

// The error after a caller has left has code Cancelled, at each stage.
func TestCallerLeaves(t *testing.T) { everywhere(t, callerLeaves) }

func callerLeaves(t *testing.T, at place) {
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
