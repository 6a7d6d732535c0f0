package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/executiontest"
	"github.com/vivarium-sandbox/vivarium/filestore"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

// filesHandler gives a handler with a store of the test's own, and its folder.
func filesHandler(t *testing.T) (http.Handler, string) {
	t.Helper()
	return filesHandlerFor(t, validates)
}

func filesHandlerFor(t *testing.T, executor execute) (http.Handler, string) {
	t.Helper()
	folder := t.TempDir()
	store, err := filestore.Open(t.Context(), filestore.Options{URL: "file://" + folder, MaxFileBytes: maxFile, MaxBytes: 2 * maxFile})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	opts := options(executor)
	opts.Files = store
	return httpapi.NewHandler(opts), folder
}

// form gives a request that uploads parts: a field, a filename and content each.
func form(t *testing.T, parts ...[3]string) *http.Request {
	t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for _, p := range parts {
		part, err := w.CreateFormFile(p[0], p[1])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(part, p[2]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := request(http.MethodPost, "/v1/files", body.String())
	r.Header.Set("Content-Type", w.FormDataContentType())
	return r
}

func upload(t *testing.T, h http.Handler, name, content string) string {
	t.Helper()
	a := serve(h, form(t, [3]string{"file", name, content}))
	var stored struct {
		FileID string `json:"file_id"`
	}
	if err := json.Unmarshal([]byte(a.body), &stored); err != nil || a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	return stored.FileID
}

func TestFiles(t *testing.T) {
	h, folder := filesHandler(t)
	const content = "\x00\xff\r\n--content"
	id := upload(t, h, "data.csv", content)
	list := serve(h, request(http.MethodGet, "/v1/files", ""))
	if want := `{"files":[{"file_id":"` + id + `","filename":"data.csv","size_bytes":13,"upload_time":`; !strings.HasPrefix(list.body, want) {
		t.Errorf("list: %s", list.body)
	}
	got := serve(h, request(http.MethodGet, "/v1/files/"+id, ""))
	if got.status != http.StatusOK || got.body != content || got.header.Get("Content-Type") != "application/octet-stream" ||
		got.header.Get("Content-Disposition") != `attachment; filename="data.csv"` || got.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("download: %+v", got)
	}
	if gone := serve(h, request(http.MethodDelete, "/v1/files/"+id, "")); gone.status != http.StatusNoContent || gone.body != "" {
		t.Errorf("delete: %+v", gone)
	}
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		for _, unknown := range []string{id, "x", "..%2f..%2fetc%2fpasswd", strings.Repeat("0", 32)} {
			a := serve(h, request(method, "/v1/files/"+unknown, ""))
			if a.status != http.StatusNotFound || !strings.HasPrefix(a.body, `{"detail":"File with ID '`) {
				t.Errorf("%s %s: %d %s", method, unknown, a.status, a.body)
			}
		}
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	serve(h, request(http.MethodGet, "/v1/files", "")).want(t, http.StatusOK, `{"files": []}`)
}

// Any name comes back in a header that no browser takes for more than a name.
func TestFilenames(t *testing.T) {
	h, _ := filesHandler(t)
	for name, want := range map[string]string{
		"":                 `attachment; filename="upload"`,
		"../../etc/passwd": `attachment; filename=".._.._etc_passwd"; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd`,
		`a"; x="b.txt`:     `attachment; filename="a_; x=_b.txt"; filename*=UTF-8''a%22%3B%20x%3D%22b.txt`,
		"grüße.txt":        `attachment; filename="gr__e.txt"; filename*=UTF-8''gr%C3%BC%C3%9Fe.txt`,
	} {
		id := upload(t, h, name, "x")
		if got := serve(h, request(http.MethodGet, "/v1/files/"+id, "")).header.Get("Content-Disposition"); got != want {
			t.Errorf("%q: %s", name, got)
		}
	}
}

func TestUploadsAtFault(t *testing.T) {
	h, folder := filesHandler(t)
	plain := func(kind, body string) *http.Request {
		r := request(http.MethodPost, "/v1/files", body)
		r.Header.Set("Content-Type", kind)
		return r
	}
	whole := form(t, [3]string{"file", "a", strings.Repeat("x", 1000)})
	data, err := io.ReadAll(whole.Body)
	if err != nil {
		t.Fatal(err)
	}
	cut := plain(whole.Header.Get("Content-Type"), string(data[:len(data)-100]))
	large := strings.Repeat("x", maxFile+1)
	unknown := form(t, [3]string{"file", "a", large + large})
	unknown.ContentLength = -1
	for name, test := range map[string]struct {
		r      *http.Request
		status int
		want   string
	}{
		"no form":           {plain("application/json", "{}"), 422, "multipart/form-data"},
		"no body":           {request(http.MethodPost, "/v1/files", ""), 422, "multipart/form-data"},
		"no boundary":       {plain("multipart/form-data", "x"), 422, "multipart/form-data"},
		"garbage":           {plain("multipart/form-data; boundary=b", "garbage"), 422, "file"},
		"another field":     {form(t, [3]string{"data", "a", "x"}), 422, "the field file is required"},
		"no field":          {form(t), 422, "the field file is required"},
		"two fields":        {form(t, [3]string{"file", "a", "x"}, [3]string{"file", "b", "y"}), 422, "given twice"},
		"truncated":         {cut, 422, "ends early"},
		"too large":         {form(t, [3]string{"file", "a", large}), 413, "File size exceeds maximum of 1 MB"},
		"far too large":     {form(t, [3]string{"file", "a", large + large}), 413, "File size exceeds maximum of 1 MB"},
		"large, length not": {unknown, 413, "File size exceeds maximum of 1 MB"},
	} {
		t.Run(name, func(t *testing.T) {
			if a := serve(h, test.r); a.status != test.status || !strings.Contains(a.body, test.want) {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	upload(t, h, "a", large[:maxFile])
	upload(t, h, "b", large[:maxFile])
	if a := serve(h, form(t, [3]string{"file", "c", "x"})); a.status != http.StatusInsufficientStorage || !strings.Contains(a.body, "file store is full") {
		t.Errorf("full: %d %s", a.status, a.body)
	}
}

// Stored files go into a run by their id, and what it makes is stored.
func TestFilesOfRuns(t *testing.T) {
	var content []byte
	h, _ := filesHandlerFor(t, func(ctx context.Context, req execution.Request) (*execution.Result, error) {
		staged, err := executiontest.Read(ctx, req.Files)
		if err != nil {
			return nil, err
		}
		content = staged[0].Content
		made := []execution.File{{Path: "folder/out.bin", Content: []byte("\x00made")}, {Path: "large", Content: make([]byte, maxFile+1)}}
		return &execution.Result{ExitCode: new(int), Files: made}, nil
	})
	id := upload(t, h, "in.bin", "\x00\xffin")
	for _, path := range []string{"/v1/execute", "/v1/execute/stream"} {
		content = nil
		a := serve(h, request(http.MethodPost, path, `{"code": "", "files": [{"path": "x", "file_id": "`+id+`"}]}`))
		if string(content) != "\x00\xffin" || a.status != http.StatusOK {
			t.Errorf("%s: staged %q: %d %s", path, content, a.status, a.body)
		}
		_, rest, _ := strings.Cut(a.body, `"file_id":"`)
		made, _, _ := strings.Cut(rest, `"`)
		if got := serve(h, request(http.MethodGet, "/v1/files/"+made, "")); got.body != "\x00made" ||
			got.header.Get("Content-Disposition") != `attachment; filename="out.bin"` {
			t.Errorf("%s: made %q as %s: %s", path, got.body, got.header.Get("Content-Disposition"), a.body)
		}
		if !strings.Contains(a.body, `"skipped_files":[{"path":"large","reason":"it could not be stored: File size exceeds maximum of 1 MB"}]`) {
			t.Errorf("%s: what could not be stored: %s", path, a.body)
		}
		files := strings.Repeat(`{"path": "a", "file_id": "`+upload(t, h, "big", strings.Repeat("x", maxFile/2+1))+`"}, `, 2)
		serve(h, request(http.MethodPost, path, `{"code": "", "files": [`+strings.TrimSuffix(files, ", ")+`]}`)).
			want(t, http.StatusRequestEntityTooLarge, `{"detail": "files take more than the workspace of 1 MB holds"}`)
	}
}
