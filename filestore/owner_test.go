package filestore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

// For other owners a file is as unknown as one that never existed, after a restart too.
// So is a file that was stored without authentication.
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

// keys returns the keys of the objects that contain a text.
func (at place) keys(t *testing.T, text string) []string {
	t.Helper()
	var keys []string
	for objects := at.bucket.List(nil); ; {
		object, err := objects.Next(t.Context())
		switch {
		case errors.Is(err, io.EOF):
			return keys
		case err != nil:
			t.Fatal(err)
		case strings.Contains(object.Key, text):
			keys = append(keys, object.Key)
		}
	}
}

// A list reads only the owner's files, so that its time does not depend on the number of
// the others.
func TestListsAreApart(t *testing.T) { everywhere(t, listsAreApart) }

func listsAreApart(t *testing.T, at place) {
	t.Helper()
	var log bytes.Buffer
	s := at.open(t, func(o *filestore.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	owners := []execution.Owner{"", "anna", "ben"}
	for _, owner := range owners {
		info, err := s.Put(execution.WithOwner(t.Context(), owner), "a.txt", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range at.keys(t, info.ID+".json") { // reading it shows in the log
			if err := at.bucket.WriteAll(t.Context(), key, []byte("{"), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, owner := range append(owners, "nobody") {
		if files, err := s.List(execution.WithOwner(t.Context(), owner)); err != nil || len(files) != 0 {
			t.Errorf("%q: %+v, %v", owner, files, err)
		}
		if read := strings.Count(log.String(), "level=WARN"); read != min(i+1, len(owners)) {
			t.Errorf("when %q has listed, %d files have been read:\n%s", owner, read, log.String())
		}
	}
}

// Files of all owners are counted, expire, and leave no orphans.
func TestSweepOfOwners(t *testing.T) { everywhere(t, sweepOfOwners) }

func sweepOfOwners(t *testing.T, at place) {
	t.Helper()
	anna := execution.WithOwner(t.Context(), "anna")
	s := at.open(t, func(o *filestore.Options) { o.TTL = time.Hour })
	var infos []filestore.Info
	for range 3 {
		info, err := s.Put(anna, "a", strings.NewReader(strings.Repeat("x", 1<<20)))
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, info)
	}
	other := at.open(t, nil)
	if _, err := other.Put(t.Context(), "b", strings.NewReader("")); code(err) != execution.StoreFull {
		t.Errorf("another server's count: %v", err)
	}
	at.backdate(t, infos[0].ID)
	if at.folder != "" { // a server died while it deleted this one
		hours := time.Now().Add(-2 * time.Hour)
		for _, key := range at.keys(t, infos[1].ID) {
			path := filepath.Join(at.folder, filepath.FromSlash(key))
			if err := os.Chtimes(path, hours, hours); err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(key, ".json") {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if n, err := s.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("%d have expired: %v", n, err)
	}
	for i, info := range infos {
		there := 2
		if i == 0 || i == 1 && at.folder != "" {
			there = 0
		}
		if left := at.keys(t, info.ID); len(left) != there {
			t.Errorf("file %d: %q", i, left)
		}
	}
	if got, err := s.Put(anna, "b", strings.NewReader("")); err != nil || len(at.keys(t, got.ID)) != 2 {
		t.Errorf("there is no room again: %v", err)
	}
}

// Files that an earlier version stored for owners outside of their folders are not found,
// and expire.
func TestOwnersFilesOfEarlierServers(t *testing.T) { everywhere(t, ownersFilesOfEarlierServers) }

func ownersFilesOfEarlierServers(t *testing.T, at place) {
	t.Helper()
	id := strings.Repeat("a", 32)
	meta, err := json.Marshal(filestore.Info{ID: id, Size: 1, Owner: "anna", Uploaded: time.Now().Add(-2 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for key, content := range map[string]string{id: "x", id + ".json": string(meta)} {
		if err := at.bucket.WriteAll(t.Context(), key, []byte(content), nil); err != nil {
			t.Fatal(err)
		}
	}
	s := at.open(t, nil)
	for _, owner := range []execution.Owner{"", "anna"} {
		ctx := execution.WithOwner(t.Context(), owner)
		files, listErr := s.List(ctx)
		if _, err := s.Stat(ctx, id); code(err) != execution.NotFound || listErr != nil || len(files) != 0 {
			t.Errorf("%q: %v; %+v, %v", owner, err, files, listErr)
		}
	}
	s = at.open(t, func(o *filestore.Options) { o.TTL = time.Hour })
	if n, err := s.Sweep(t.Context()); n != 1 || err != nil || at.entries(t) != 0 {
		t.Errorf("%d have expired: %v; %d objects are left", n, err, at.entries(t))
	}
}

// An owner's concurrent lists wait for each other, and not for those of other owners.
func TestListsTakeTurns(t *testing.T) {
	s := inFolder(t).open(t, nil)
	anna, leave := context.WithCancel(execution.WithOwner(t.Context(), "anna"))
	for range 2 {
		done, err := s.TakeTurn(anna)
		if err != nil {
			t.Fatal(err)
		}
		defer done()
	}
	if _, err := s.List(execution.WithOwner(t.Context(), "ben")); err != nil {
		t.Error(err)
	}
	leave()
	if _, err := s.List(anna); code(err) != execution.Cancelled {
		t.Errorf("a third list: %v", err)
	}
}
