package filestore_test

import (
	"context"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// The memory of a request is charged to its account: a list for each file, an upload to
// an object store for its parts.
func TestMemoryIsCharged(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		t.Helper()
		s := at.open(t, nil)
		for range 5 {
			put(t, s, "x", "abc")
		}
		within := func(bytes int64) context.Context {
			return execution.WithAccount(t.Context(), execution.NewBudget(bytes).Open(""))
		}
		if files, err := s.List(within(20_000)); err != nil || len(files) != 5 {
			t.Errorf("with room for the list: %v, %v", files, err)
		}
		if _, err := s.List(within(5_000)); err == nil || execution.AsError(err).Code != execution.Overloaded {
			t.Errorf("without: %v", err)
		}
		if at.folder != "" {
			return
		}
		ctx := within(15 << 20)
		for range 2 { // what one took is given back
			if _, err := s.Put(ctx, "x", strings.NewReader("abc")); err != nil {
				t.Errorf("with room for an upload: %v", err)
			}
		}
		if _, err := s.Put(within(14<<20), "x", strings.NewReader("abc")); err == nil || execution.AsError(err).Code != execution.Overloaded {
			t.Errorf("without: %v", err)
		}
	})
}
