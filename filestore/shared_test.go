package filestore_test

import (
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

// Servers that share a bucket count the files of the others at each sweep.
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
		t.Errorf("files of others are not counted: %v", err)
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
		t.Errorf("a file with a reader is not counted: %v", err)
	}
	if err := reading.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, ours, "d", mega)
	if _, err := ours.Put(t.Context(), "e", strings.NewReader("x")); code(err) != execution.StoreFull {
		t.Errorf("the room was given back twice: %v", err)
	}
}

// Deleting a file that another server stored since the last sweep gives back no room that
// was not counted.
func TestDeleteUncountedFile(t *testing.T) { everywhere(t, deletesUncountedFile) }

func deletesUncountedFile(t *testing.T, at place) {
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

// A file that is being written is counted once, also if a sweep sees a part of it.
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

// A list does not fail if files are deleted while it is made.
func TestListWhileFilesAreDeleted(t *testing.T) { everywhere(t, listsWhileFilesAreDeleted) }

func listsWhileFilesAreDeleted(t *testing.T, at place) {
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
