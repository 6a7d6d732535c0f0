package integration

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

type listedEntry struct {
	Path, Kind   string
	SizeBytes    int64   `json:"size_bytes"`
	ModifiedTime float64 `json:"modified_time"`
}

type sessionListing struct {
	Files        []listedEntry
	SkippedFiles []struct{ Path, Reason string } `json:"skipped_files"`
	Truncated    bool
}

// list lists files of a session, as "kind path size".
func (s *session) list(t *testing.T, below string) (entries []string, listing sessionListing) {
	t.Helper()
	status, text := s.server.send(t, http.MethodGet, s.path("/files"+below), "", nil)
	if status != http.StatusOK {
		t.Fatalf("listing: %d %s", status, text)
	}
	if err := json.Unmarshal([]byte(text), &listing); err != nil {
		t.Fatal(err)
	}
	for _, f := range listing.Files {
		entries = append(entries, fmt.Sprintf("%s %s %d", f.Kind, f.Path, f.SizeBytes))
		if f.ModifiedTime < 1e9 {
			t.Errorf("%s was changed at %f", f.Path, f.ModifiedTime)
		}
	}
	return entries, listing
}

func TestSessionFilesAreListed(t *testing.T) {
	s := startSession(t, shared.server, request{})
	s.bash(t, `mkdir -p data/deep/empty && printf 12345 > data/a.csv && ln -s /etc/passwd link && mkfifo pipe && ln -s data folder`)
	got, listing := s.list(t, "")
	want := []string{"folder data 0", "file data/a.csv 5", "folder data/deep 0", "folder data/deep/empty 0", "link folder 4", "link link 11", "other pipe 0"}
	if !slices.Equal(got, want) || listing.Truncated || len(listing.SkippedFiles) != 0 {
		t.Errorf("the files are %q, %+v", got, listing)
	}
	for below, want := range map[string][]string{
		"/": got, "?path=data": want[1:4], "?path=data/": want[1:4], "/data/": want[1:4], "?path=data/a.csv": want[1:2], "?path=link": want[5:6], "/data/deep/empty/": nil,
	} {
		if got, _ := s.list(t, below); !slices.Equal(got, want) {
			t.Errorf("%s: %q", below, got)
		}
	}
	for _, missing := range []string{"?path=none", "?path=link/x", "?path=folder/a.csv", "/none/"} {
		if status, text := s.server.send(t, http.MethodGet, s.path("/files"+missing), "", nil); status != http.StatusNotFound {
			t.Errorf("%s: %d %s", missing, status, text)
		}
	}

	s.bash(t, `mkdir many && cd many && for i in $(seq 10100); do : > $i; done; touch $'../new\nline'`)
	got, listing = s.list(t, "")
	if len(got) != 10_000 || !listing.Truncated {
		t.Errorf("%d of many are listed, %+v", len(got), listing.SkippedFiles)
	}
	s.bash(t, `rm -r many`)
	if _, listing = s.list(t, ""); listing.Truncated || len(listing.SkippedFiles) != 1 || !strings.Contains(listing.SkippedFiles[0].Reason, "control character") {
		t.Errorf("skipped: %+v", listing.SkippedFiles)
	}
}

func TestSessionFilesHead(t *testing.T) {
	s := startSession(t, shared.server, request{})
	s.bash(t, `printf 12345 > a.csv; mkdir folder; ln -s a.csv link; touch -d @1700000000 a.csv`)
	for path, want := range map[string]int{
		"/files/a.csv": http.StatusOK, "/files/none": http.StatusNotFound, "/files/folder": http.StatusUnprocessableEntity,
		"/files/link": http.StatusUnprocessableEntity, "/files/../x": http.StatusNotFound, "/files": http.StatusOK, "/files/folder?format=tar": http.StatusOK,
		"/files/a.csv?format=tar": http.StatusNotFound,
	} {
		resp, err := http.Head(s.server.url + s.path(path))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
		if path == "/files/a.csv" && (resp.ContentLength != 5 || resp.Header.Get("Last-Modified") != "Tue, 14 Nov 2023 22:13:20 GMT") {
			t.Errorf("%d bytes, %v", resp.ContentLength, resp.Header)
		}
	}
}

func TestSessionFilesAreDeleted(t *testing.T) {
	s := startSession(t, shared.server, request{})
	s.bash(t, `mkdir -p /tmp/outside data/deep && touch /tmp/outside/kept data/deep/x data/y z && ln -s /tmp/outside data/out && ln -s /tmp/outside out && chmod 0 data/deep`)
	for _, step := range []struct {
		path   string
		status int
	}{
		{"none", 404}, {"out/kept", 404}, {"data/out", 204}, {"z", 204}, {"z", 404}, {"data/", 204}, {"out", 204}, {"", 422}, {"%2E%2E/x", 422},
	} {
		if status, text := s.server.send(t, http.MethodDelete, s.path("/files/"+step.path), "", nil); status != step.status {
			t.Errorf("%s: %d %s", step.path, status, text)
		}
	}
	if got, _ := s.list(t, ""); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
	program{stdout: "kept\n"}.check(t, s.bash(t, "ls /tmp/outside"))
	s.bash(t, `python3 -c "
import os
for _ in range(45): os.mkdir('deep'); os.chdir('deep')
for i in range(3000): open(str(i), 'w')"`)
	if status, text := s.server.send(t, http.MethodDelete, s.path("/files/deep"), "", nil); status != http.StatusNoContent {
		t.Errorf("a deep one: %d %s", status, text)
	}
}

func TestSessionFilesAreRenamed(t *testing.T) {
	s := startSession(t, shared.server, request{})
	s.bash(t, `mkdir folder full && echo a > a && echo b > b && touch full/x && ln -s /tmp out && ln -s a link`)
	for _, step := range []struct {
		path, target string
		status       int
		says         string
	}{
		{"none", "x", 404, "File 'none' not found in the session"},
		{"a", "new/deep/a", 204, ""},
		{"new/deep/a", "b", 204, ""}, // a file replaces a file
		{"b", "folder", 422, "exists already"},
		{"folder", "b", 422, "exists already"},
		{"folder", "full", 422, "exists already"},
		{"folder", "new/folder", 204, ""},
		{"new", "new/folder/new", 422, "it lies in the folder itself"},
		{"b", "link", 422, "exists already"},
		{"link", "moved", 204, ""},
		{"b", "out/b", 422, "cannot be used"},
		{"out/x", "x", 404, ""},
		{"b", "../b", 422, `must not contain`},
		{"b", "__main__.py", 422, "reserved"},
		{"b", "b", 204, ""},
	} {
		body, err := json.Marshal(map[string]string{"path": step.target})
		if err != nil {
			t.Fatal(err)
		}
		status, text := s.server.send(t, http.MethodPatch, s.path("/files/"+step.path), "application/json", bytes.NewReader(body))
		if status != step.status || !strings.Contains(text, step.says) || status == 422 && !strings.Contains(text, `["body","path"]`) {
			t.Errorf("%s to %s: %d %s", step.path, step.target, status, text)
		}
	}
	program{stdout: "a\n"}.check(t, s.bash(t, "cat b"))
	got, _ := s.list(t, "")
	if want := []string{"file b 2", "folder full 0", "file full/x 0", "link moved 1", "folder new 0", "folder new/deep 0", "folder new/folder 0", "link out 4"}; !slices.Equal(got, want) {
		t.Errorf("the files are %q", got)
	}
}

// untar returns what an archive has, "name mode content".
func untar(t *testing.T, archive string) (entries []string) {
	t.Helper()
	reader := tar.NewReader(strings.NewReader(archive))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, strings.TrimSpace(fmt.Sprintf("%s %o %s", header.Name, header.Mode, content)))
	}
}

// Folders come out of a session, and go into another, as archives.
func TestSessionFoldersAsArchives(t *testing.T) {
	s := startSession(t, shared.server, request{})
	s.bash(t, `mkdir -p data/empty data/é && echo 1 > data/é/x && echo 'echo hi' > data/run.sh && chmod +x data/run.sh && ln -s /etc/passwd data/link && mkfifo data/pipe && head -c 3000000 /dev/zero > large`)
	status, archive := s.server.send(t, http.MethodGet, s.path("/files/data?format=tar"), "", nil)
	want := []string{"empty/ 755", "run.sh 755 echo hi", "é/ 755", "é/x 644 1"}
	if got := untar(t, archive); status != http.StatusOK || !slices.Equal(got, want) {
		t.Fatalf("the folder is %d %q", status, got)
	}
	status, whole := s.server.send(t, http.MethodGet, s.path("/files?format=tar"), "", nil)
	if got := untar(t, whole); status != http.StatusOK || len(got) != 6 || len(whole) < 3_000_000 {
		t.Errorf("the workspace is %d, %d entries, %d bytes", status, len(got), len(whole))
	}
	other := startSession(t, shared.server, request{})
	for _, into := range []string{"/files", "/files/copy", "/files/copy/"} {
		if status, text := other.server.send(t, http.MethodPut, other.path(into), "application/x-tar", strings.NewReader(archive)); status != http.StatusNoContent {
			t.Errorf("into %s: %d %s", into, status, text)
		}
	}
	program{stdout: "hi\n1\nhi\n"}.check(t, other.bash(t, "./run.sh; cat copy/é/x; copy/run.sh; rmdir empty copy/empty"))
	program{stdout: "0\n"}.check(t, other.bash(t, `tar -C copy -cf - . > /tmp/made.tar && cp /tmp/made.tar . && ls -a | grep -c vivarium; true`))
	_, made := other.server.send(t, http.MethodGet, other.path("/files/made.tar"), "", nil)
	if status, text := s.server.send(t, http.MethodPut, s.path("/files/back"), "application/x-tar", strings.NewReader(made)); status != http.StatusNoContent {
		t.Errorf("back: %d %s", status, text)
	}
	program{stdout: "hi\n"}.check(t, s.bash(t, "back/run.sh"))
}

// An archive is unpacked whole or not at all.
func TestSessionArchivesAreRefused(t *testing.T) {
	s := startSession(t, shared.server, request{})
	s.bash(t, "mkdir folder; ln -s /tmp out")
	pack := func(headers ...tar.Header) string {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range append([]tar.Header{{Name: "fine", Size: 1}}, headers...) {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			_, _ = io.CopyN(w, zeros{}, h.Size)
		}
		_ = w.Close()
		return b.String()
	}
	for name, test := range map[string]struct {
		archive string
		status  int
		says    string
	}{
		"a link":         {pack(tar.Header{Name: "evil", Typeflag: tar.TypeSymlink, Linkname: "/etc"}), 422, `"loc":["body","evil"],"msg":"evil is a symbolic link, which is not unpacked"`},
		"a hard link":    {pack(tar.Header{Name: "evil", Typeflag: tar.TypeLink, Linkname: "fine"}), 422, "evil is a hard link"},
		"a device":       {pack(tar.Header{Name: "evil", Typeflag: tar.TypeChar}), 422, "evil is a device"},
		"out of it":      {pack(tar.Header{Name: "../evil"}), 422, `../evil must not contain \"..\"`},
		"absolute":       {pack(tar.Header{Name: "/evil"}), 422, "/evil must be relative to the workspace"},
		"reserved":       {pack(tar.Header{Name: "__main__.py"}), 422, "is reserved for the program itself"},
		"on a folder":    {pack(tar.Header{Name: "folder"}), 422, "folder cannot be used"},
		"over a link":    {pack(tar.Header{Name: "out/x"}), 422, "out/x cannot be used"},
		"too large":      {pack(tar.Header{Name: "large", Size: 70 << 20}), 413, "workspace of 64 MB"},
		"not a tar":      {strings.Repeat("junk", 1000), 422, "must be a tar archive"},
		"cut short":      {pack(tar.Header{Name: "cut", Size: 5000})[:3000], 422, "ends early"},
		"another folder": {"", 422, "Content-Type"},
	} {
		kind := "application/x-tar"
		if test.archive == "" {
			kind = "application/octet-stream"
		}
		status, text := s.server.send(t, http.MethodPut, s.path("/files"), kind, strings.NewReader(test.archive))
		if status != test.status || !strings.Contains(text, test.says) {
			t.Errorf("%s: %d %s", name, status, text)
		}
		program{stdout: "folder\nout\n"}.check(t, s.bash(t, "ls -A; ls -A /tmp/x 2>/dev/null; true"))
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
