package filestore_test

import (
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// To others than its owner a file is as unknown as one that never was, after a
// restart too; so is one that was stored while nobody was asked who they are.
func TestOwners(t *testing.T) { everywhere(t, owners) }

func owners(t *testing.T, at place) {
	t.Helper()
	s := at.open(t, nil)
	stored := make(map[execution.Owner]string)
	for _, owner := range []execution.Owner{"", "anna", "ben"} {
		info, err := s.Put(execution.WithOwner(t.Context(), owner), "a.txt", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		stored[owner] = info.ID
	}
	s = at.open(t, nil)
	unknown := strings.Repeat("0", 32)
	_, absent := s.Stat(t.Context(), unknown)
	for owner, id := range stored {
		for asker, own := range stored {
			ctx := execution.WithOwner(t.Context(), asker)
			if files, err := s.List(ctx); err != nil || len(files) != 1 || files[0].ID != own {
				t.Errorf("%q lists %+v, %v", asker, files, err)
			}
			if asker == owner {
				continue
			}
			_, stat := s.Stat(ctx, id)
			_, get := s.Get(ctx, id)
			_, hold := s.Hold(ctx, id)
			for what, err := range map[string]error{"Stat": stat, "Get": get, "Hold": hold, "Delete": s.Delete(ctx, id)} {
				if code(err) != execution.NotFound || strings.ReplaceAll(err.Error(), id, unknown) != absent.Error() {
					t.Errorf("%s of %q's file by %q: %v", what, owner, asker, err)
				}
			}
		}
		ctx := execution.WithOwner(t.Context(), owner)
		if err := s.Delete(ctx, id); err != nil {
			t.Errorf("%q cannot delete its own: %v", owner, err)
		}
		delete(stored, owner)
	}
}
