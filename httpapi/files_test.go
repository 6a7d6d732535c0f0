package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/executiontest"
	"github.com/vivarium-sandbox/vivarium/filestore"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

// filesHandler returns a handler with a store of its own, and the folder of the store.
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

// form returns a request that uploads parts: a field, a filename and the content of each.
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

// leavingBody is a body that arrives at once and whose client then leaves.
type leavingBody struct {
	io.Reader
	leave context.CancelFunc
}

func (b leavingBody) Read(p []byte) (int, error) {
	defer b.leave()
	return b.Reader.Read(p)
}

// A client that leaves after it has sent its file is not logged as an error.
func TestUploadClientLeaves(t *testing.T) {
	store, err := filestore.Open(t.Context(), filestore.Options{URL: "file://" + t.TempDir(), MaxFileBytes: maxFile, MaxBytes: maxFile})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	opts := options(validates)
	opts.Files = store
	log, text := newLog()
	opts.Log = log
	ctx, leave := context.WithCancel(t.Context())
	r := form(t, [3]string{"file", "a", "x"}).WithContext(ctx)
	r.Body = io.NopCloser(leavingBody{r.Body, leave})
	if a := serve(httpapi.NewHandler(opts), r); a.status != 499 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if said := text.String(); strings.Contains(said, "ERROR") || !strings.Contains(said, "499") {
		t.Errorf("the log is:\n%s", said)
	}
}

// Any name is returned in a header that every browser reads as a name only.
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

func TestInvalidUploads(t *testing.T) {
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

// A form that is cut short at any byte, or is not a form, leaves no file and is not logged
// as an error.
func TestIncompleteForms(t *testing.T) {
	const head, name = "--B\r\nContent-Disposition: form-data; name=", "\"; filename=\"a\"\r\n\r\n"
	const whole = head + "\"file" + name + "content\r\n" + head + "\"x" + name + "more\r\n--B--"
	forms := []string{
		"--B\r\nno header\r\n\r\nx\r\n--B--\r\n",
		strings.Replace(whole, "\"a\"", "\"a\x00b\"", 1) + "\r\n",
		head + "\"file" + name + "content\r\n--B\r\nno header\r\n\r\nx\r\n--B--\r\n",
	}
	for n := range len(whole) {
		forms = append(forms, whole[:n])
	}
	store, err := filestore.Open(t.Context(), filestore.Options{URL: "file://" + t.TempDir(), MaxFileBytes: maxFile, MaxBytes: maxFile})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	opts := options(validates)
	opts.Files = store
	log, text := newLog()
	opts.Log = log
	h := httpapi.NewHandler(opts)
	post := func(body string) answer {
		r := request(http.MethodPost, "/v1/files", "")
		r.Body = io.NopCloser(strings.NewReader(body))
		r.Header.Set("Content-Type", "multipart/form-data; boundary=B")
		return serve(h, r)
	}
	for _, body := range forms {
		if a := post(body); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, "the form ends early or is not valid") {
			t.Errorf("%q: %d %s", body, a.status, a.body)
		}
	}
	if kept, err := store.List(t.Context()); err != nil || len(kept) > 0 {
		t.Errorf("kept are %+v, %v", kept, err)
	}
	if strings.Contains(text.String(), "ERROR") {
		t.Errorf("the log is:\n%s", text)
	}
	for _, body := range []string{whole, whole + "\r\n", whole + "\r\nan epilogue"} {
		if a := post(body); a.status != http.StatusCreated {
			t.Errorf("%q: %d %s", body, a.status, a.body)
		}
	}
}

// runs returns an executor whose programs are functions.
func runs(program executiontest.Program) execute {
	return func(ctx context.Context, req execution.Request) (*execution.Result, error) {
		req, err := req.Validate(ctx, limits)
		if err != nil {
			return nil, err
		}
		return executiontest.NewSandbox(program).Run(ctx, req, limits)
	}
}

// makes returns a program that creates files.
func makes(files ...execution.File) executiontest.Program {
	return func(context.Context, execution.Request) executiontest.Outcome {
		return executiontest.Outcome{Files: files}
	}
}

var executePaths = []string{"/v1/execute", "/v1/execute/stream"}

// staging returns a request that stages a stored file.
func staging(path, id string) *http.Request {
	return request(http.MethodPost, path, `{"code": "", "files": [{"path": "x", "file_id": "`+id+`"}]}`)
}

// Stored files are staged by their ids, and the results of a run are stored.
func TestFilesOfRuns(t *testing.T) {
	var content []byte
	h, _ := filesHandlerFor(t, runs(func(ctx context.Context, req execution.Request) executiontest.Outcome {
		staged, err := executiontest.Read(ctx, req.Files)
		if err != nil {
			t.Error(err)
			return executiontest.Outcome{ExitCode: 1}
		}
		content = staged[0].Content
		return executiontest.Outcome{Files: []execution.File{
			{Path: "folder/out.bin", Content: []byte("\x00made")}, {Path: "large", Content: make([]byte, maxFile+1)},
		}}
	}))
	id := upload(t, h, "in.bin", "\x00\xffin")
	for _, path := range executePaths {
		content = nil
		a := serve(h, staging(path, id))
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
	}
	half := upload(t, h, "big", strings.Repeat("x", maxFile/2+1))
	for _, path := range executePaths {
		serve(h, request(http.MethodPost, path, `{"code": "", "files": [{"path": "a", "file_id": "`+half+`"}, {"path": "b", "file_id": "`+half+`"}]}`)).
			want(t, http.StatusRequestEntityTooLarge, `{"detail": "files take 1056768 bytes, more than the workspace of 1 MB holds"}`)
	}
}

// Other faults of a request are reported before unknown files.
func TestFaultsBeforeUnknownFiles(t *testing.T) {
	const unknown = `{"path": "a", "file_id": "x"}`
	for body, part := range map[string]string{
		`{"code": "", "files": [` + unknown + `, {"path": "..", "file_id": "y"}]}`:                `must not contain`,
		`{"code": "", "files": [` + unknown + `, {"path": "a", "file_id": "y"}]}`:                 `is given twice`,
		`{"code": "", "files": [` + unknown + `, {"path": "b"}]}`:                                 `file_id is required`,
		`{"code": "", "files": [` + unknown + `, {"path": "b", "content_base64": "*"}]}`:          `standard base64`,
		`{"code": "", "files": [` + unknown + `], "timeout_ms": 60001}`:                           `timeout_ms exceeds maximum of 60000 ms`,
		`{"code": "", "files": [` + unknown + `, {"path": "__main__.py", "content_base64": ""}]}`: `reserved`,
	} {
		for _, path := range executePaths {
			a := serve(handler(validates), request(http.MethodPost, path, body))
			if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, part) {
				t.Errorf("%s %s: %d %s", path, body, a.status, a.body)
			}
		}
	}
}

// A deleted file stays readable until the run that uses it is over.
func TestInputsStayDuringTheRun(t *testing.T) {
	var h http.Handler
	var id string
	h, folder := filesHandlerFor(t, runs(func(ctx context.Context, req execution.Request) executiontest.Outcome {
		if a := serve(h, request(http.MethodDelete, "/v1/files/"+id, "")); a.status != http.StatusNoContent {
			t.Errorf("delete: %d %s", a.status, a.body)
		}
		if files, err := executiontest.Read(ctx, req.Files); err != nil || string(files[0].Content) != "content" {
			t.Errorf("%v, %v", files, err)
		}
		return executiontest.Outcome{}
	}))
	for _, path := range executePaths {
		id = upload(t, h, "a", "content")
		if a := serve(h, staging(path, id)); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		wantNoObjects(t, path, folder)
	}
}

// wantNoObjects checks that a store's folder is empty.
func wantNoObjects(t *testing.T, name, folder string) {
	t.Helper()
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("%s: left are %v, %v", name, left, err)
	}
}

// The results of a run that fails, or whose client has left, are deleted.
func TestUndeliveredResultsAreDeleted(t *testing.T) {
	made := runs(makes(execution.File{Path: "a", Content: []byte("x")}, execution.File{Path: "b"}))
	for name, end := range map[string]func(*execution.Result, context.CancelFunc) (*execution.Result, error){
		"an error": func(*execution.Result, context.CancelFunc) (*execution.Result, error) {
			return nil, errors.New("broken")
		},
		"a panic":        func(*execution.Result, context.CancelFunc) (*execution.Result, error) { panic("broken") },
		"a client gone":  func(r *execution.Result, leave context.CancelFunc) (*execution.Result, error) { leave(); return r, nil },
		"a client heard": func(r *execution.Result, _ context.CancelFunc) (*execution.Result, error) { return r, nil },
	} {
		for _, path := range executePaths {
			ctx, leave := context.WithCancel(t.Context())
			h, folder := filesHandlerFor(t, func(ctx context.Context, req execution.Request) (*execution.Result, error) {
				result, err := made(ctx, req)
				if err != nil {
					return nil, err
				}
				return end(result, leave)
			})
			h.ServeHTTP(&goneWriter{ResponseRecorder: httptest.NewRecorder(), ctx: ctx},
				request(http.MethodPost, path, `{"code": ""}`).WithContext(ctx))
			leave()
			if name != "a client heard" {
				wantNoObjects(t, name+", "+path, folder)
			} else if left, err := os.ReadDir(folder); err != nil || len(left) != 4 {
				t.Errorf("%s: %v, %v", path, left, err)
			}
		}
	}
}

// goneWriter fails after the client has left.
type goneWriter struct {
	*httptest.ResponseRecorder
	ctx context.Context //nolint:containedctx // the request's
}

func (w *goneWriter) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, io.ErrClosedPipe
	}
	return w.ResponseRecorder.Write(p)
}
