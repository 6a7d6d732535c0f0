package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestFilesAreComparedWhole(t *testing.T) {
	folder, content := t.TempDir(), []byte("0123456789")
	served, err := servePlain(folder, content)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = served.server.Close() }()
	copies := &copier{folder: folder, source: filepath.Join(folder, "source")}
	if err := os.WriteFile(copies.source, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, k := range []keeper{served, copies} {
		turns := filesTurns{keeper: k}
		for range 3 {
			if err := turns.turn(t.Context(), content); err != nil {
				t.Fatal(err)
			}
		}
		if r := turns.result(1); len(turns.up) != 3 || r.Upload <= 0 || r.Download <= 0 {
			t.Errorf("got %+v", r)
		}
		for _, other := range []string{"0123456789x", "012345678x"} {
			if err := turns.turn(t.Context(), []byte(other)); !errors.Is(err, errWrong) {
				t.Errorf("%s: %v", other, err)
			}
		}
	}
}
