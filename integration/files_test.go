package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// send sends a request and gives the status and the body of the answer.
func (s *server) send(t *testing.T, method, path, kind string, body io.Reader) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// upload stores a file and gives its id.
func (s *server) upload(t *testing.T, name, content string) string {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("file", name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(part, content)
	if err := errors.Join(err, form.Close()); err != nil {
		t.Fatal(err)
	}
	status, answer := s.send(t, http.MethodPost, "/v1/files", form.FormDataContentType(), &body)
	var stored struct {
		FileID string `json:"file_id"`
	}
	if err := json.Unmarshal([]byte(answer), &stored); err != nil || status != http.StatusCreated {
		t.Fatalf("%d %s", status, answer)
	}
	return stored.FileID
}

// download gives a stored file's content.
func (s *server) download(t *testing.T, id string) string {
	t.Helper()
	status, content := s.send(t, http.MethodGet, "/v1/files/"+id, "", nil)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, content)
	}
	return content
}

// The server does not start where other users could put links among its files, and
// says what to do.
func TestFileFolderOpenToOthers(t *testing.T) {
	folder := folderOf(t, *userFlag)
	if err := os.Chmod(folder, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	s, err := startProcess([]string{"FILE_STORAGE_DIR=" + folder})
	if err == nil {
		t.Fatalf("the server starts (%v)", s.end())
	}
	want := "FILE_STORAGE_DIR: file store: " + folder + " can be written by other users (mode 01777): run `chmod 700 " + folder + "`"
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%q is not in the error: %v", want, err)
	}
}

// A file outlives the server that took it, and expires.
func TestFilesSurviveARestart(t *testing.T) {
	folder := "FILE_STORAGE_DIR=" + folderOf(t, *userFlag)
	first, err := start([]string{folder})
	if err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("\x00\xff\r\n", 1<<20)
	id := first.upload(t, "large.bin", content)
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	second := startServer(t, folder)
	if second.download(t, id) != content {
		t.Error("the file has changed")
	}
	if status, body := second.send(t, http.MethodDelete, "/v1/files/"+id, "", nil); status != http.StatusNoContent {
		t.Errorf("delete: %d %s", status, body)
	}
	short := startServer(t, folder, "FILE_TTL_SEC=1")
	id = short.upload(t, "a", "x")
	began := time.Now()
	if !poll(func() bool {
		status, _ := short.send(t, http.MethodGet, "/v1/files/"+id, "", nil)
		return status == http.StatusNotFound
	}) || time.Since(began) < 500*time.Millisecond {
		t.Errorf("it expired, or not, after %v", time.Since(began))
	}
}

// A file goes in by its id; what the program makes of it can be downloaded, and
// goes into the next run.
func TestFilesOfRuns(t *testing.T) {
	s := shared.server
	staged := func(id string) []map[string]any { return []map[string]any{{"path": "data/in.bin", "file_id": id}} }
	first := mustRun(t, s, request{
		"code":  "open('out.bin', 'wb').write(open('data/in.bin', 'rb').read()[::-1]); None",
		"files": staged(s.upload(t, "in.bin", "\x00\xff123")),
	})
	if first.paths() != "out.bin" {
		t.Fatalf("files: %q; %s", first.paths(), first.Stderr)
	}
	if got := s.download(t, first.Files[0].FileID); got != "321\xff\x00" {
		t.Errorf("made: %q", got)
	}
	second := mustRun(t, s, request{"code": "open('data/in.bin', 'rb').read()", "files": staged(first.Files[0].FileID)})
	program{stdout: "b'321\\xff\\x00'\n"}.check(t, second)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := s.execute(ctx, request{"code": "", "files": staged("../etc/passwd")})
	if err != nil || a.status != http.StatusNotFound || a.Detail != "File with ID '../etc/passwd' not found for path 'data/in.bin'." {
		t.Errorf("unknown: %v, %+v", err, a)
	}
}
