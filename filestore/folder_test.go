package filestore_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

const (
	plantedID    = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	plantedOwner = execution.Owner("anna")
)

// plant puts links into a folder that make any file a file of anna's.
func plant(t *testing.T, folder, target string) {
	t.Helper()
	info, err := json.Marshal(filestore.Info{ID: plantedID, Name: "x", Size: 6, Uploaded: time.Now(), Owner: plantedOwner})
	if err != nil {
		t.Fatal(err)
	}
	inner := filepath.Join(folder, "of-"+string(plantedOwner))
	if err := errors.Join(os.MkdirAll(inner, 0o700), os.Symlink(target, filepath.Join(inner, plantedID)),
		os.WriteFile(filepath.Join(inner, plantedID+".json"), info, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// A folder that other users may write to is refused, and so is what they left there after
// it was closed to them.
func TestFolderOthersMayWrite(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	folder := filepath.Join(t.TempDir(), "files")
	if err := errors.Join(os.WriteFile(secret, []byte("secret"), 0o600), os.Mkdir(folder, 0o700), os.Chmod(folder, 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	plant(t, folder, secret)
	opts := filestore.Options{URL: "file://" + folder, MaxFileBytes: 1 << 20, MaxBytes: 1 << 20}
	inner := filepath.Join(folder, "of-"+string(plantedOwner))
	for _, step := range []struct {
		mend func() error
		want string
	}{
		{func() error { return nil }, folder + " can be written by other users (mode 01777): run `chmod 700 " + folder + "`"},
		{func() error { return os.Chmod(folder, 0o700) }, filepath.Join(inner, plantedID) + " is a symbolic link: remove it"},
		{func() error { return os.Chmod(inner, 0o702) }, inner + " can be written by other users (mode 0702)"},
		{func() error { return errors.Join(os.Rename(inner, folder+"/real"), os.Symlink("real", inner)) }, inner + " is a symbolic link"},
	} {
		if err := step.mend(); err != nil {
			t.Fatal(err)
		}
		s, err := filestore.Open(t.Context(), opts)
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), step.want) {
			t.Errorf("%q is not in the error: %v", step.want, err)
		}
	}
	if err := os.RemoveAll(inner); err != nil {
		t.Fatal(err)
	}
	s, err := filestore.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.Get(execution.WithOwner(t.Context(), plantedOwner), plantedID); code(err) != execution.NotFound {
		t.Errorf("the planted file: %v", err)
	}
}

// Files that other users own are refused if their names are those of stored files.
func TestFolderWithFilesOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		return // only root can give files away
	}
	at := inFolder(t)
	info := put(t, at.open(t, nil), "a", "content")
	if err := errors.Join(os.Mkdir(filepath.Join(at.folder, "lost+found"), 0o700), os.Chown(filepath.Join(at.folder, "lost+found"), 64123, 64123)); err != nil {
		t.Fatal(err)
	}
	at.open(t, nil)
	if err := os.Chown(filepath.Join(at.folder, info.ID), 64123, 64123); err != nil {
		t.Fatal(err)
	}
	_, err := filestore.Open(t.Context(), filestore.Options{URL: "file://" + at.folder, MaxFileBytes: 1, MaxBytes: 1})
	if want := info.ID + " belongs to uid 64123"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%q is not in the error: %v", want, err)
	}
}

// A folder that is reached by a link is used by its real path.
func TestFolderByALink(t *testing.T) {
	root := t.TempDir()
	if err := errors.Join(os.Mkdir(root+"/real", 0o700), os.Symlink("real", root+"/link")); err != nil {
		t.Fatal(err)
	}
	at := place{folder: root + "/link/files"}
	s := at.open(t, nil)
	if err := os.Remove(root + "/link"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, put(t, s, "a", "content").ID); got != "content" {
		t.Errorf("read %q", got)
	}
}
