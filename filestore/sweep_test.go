package filestore_test

import (
	"bytes"
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
		t.Errorf("its reader read %q, %v", data, err)
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

// A sweep removes what a killed server has left, and nothing that is not the store's.
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

// A sweep does not remove a held file, even if it is old and deleted.
func TestSweepKeepsHeldFiles(t *testing.T) {
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

// Unreadable metadata does not affect the other files. It is logged once and left in
// place.
func TestUnreadableMetadata(t *testing.T) { everywhere(t, unreadable) }

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

// age makes all entries of the folder two hours old.
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
