package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

const knownSession = "00112233445566778899aabbccddeeff"

// sessions is a fake with one session. It records its calls.
type sessions struct {
	mu    sync.Mutex
	files map[string]string
	ttl   time.Duration
	fail  error  // of every operation
	torn  string // the file that breaks off
	cut   bool   // the list of files is

	expires time.Time
}

func newSessions() *sessions {
	return &sessions{files: make(map[string]string), expires: expires}
}

var expires = time.UnixMilli(1_764_000_900_500)

func (s *sessions) Create(ctx context.Context, ttl time.Duration, files []execution.Input) (execution.SessionInfo, error) {
	s.ttl = ttl
	if _, err := (execution.WriteRequest{Files: files}).Validate(ctx, limits); err != nil {
		return execution.SessionInfo{}, err
	}
	return execution.SessionInfo{ID: knownSession, Expires: s.expires}, s.fail
}

func (s *sessions) List(context.Context) ([]execution.SessionInfo, error) {
	return []execution.SessionInfo{{ID: knownSession, Expires: s.expires}}, s.fail
}

func (s *sessions) find(id string) error {
	if id != knownSession {
		return &execution.Error{Code: execution.NotFound, Message: "Session '" + id + "' not found"}
	}
	return s.fail
}

func (s *sessions) Extend(_ context.Context, id string, idle time.Duration) (execution.SessionInfo, error) {
	s.ttl = idle
	return execution.SessionInfo{ID: knownSession, Expires: expires}, s.find(id)
}

func (s *sessions) Delete(_ context.Context, id string) error { return s.find(id) }

func (s *sessions) RunPython(ctx context.Context, id string, req execution.Request) (*execution.Result, error) {
	req, err := req.Validate(ctx, limits)
	if err != nil {
		return nil, err
	}
	if err := s.find(id); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, file := range req.Files {
		if err := s.write(ctx, file); err != nil {
			return nil, err
		}
	}
	if req.Started != nil {
		req.Started()
	}
	return ran(fmt.Sprintf("0 %v %s%s", req.Timeout, req.Code, passedOn(req.Env, req.Args)), req.Code), nil
}

func (s *sessions) RunBash(_ context.Context, id string, cmd execution.Command) (*execution.Result, error) {
	cmd, err := cmd.Validate(limits)
	if err != nil {
		return nil, err
	}
	if err := s.find(id); err != nil {
		return nil, err
	}
	return ran(fmt.Sprintf("1 %v %s%s", cmd.Timeout, cmd.Command, passedOn(cmd.Env, cmd.Args)), cmd.Command), nil
}

// passedOn shows the variables and arguments of a call that has some.
func passedOn(env map[string]string, args []string) string {
	if len(env)+len(args) == 0 {
		return ""
	}
	return fmt.Sprintf(" %v %q", env, args)
}

func ran(stdout, code string) *execution.Result {
	return &execution.Result{
		Stdout: stdout, ExitCode: new(int), End: execution.End{Reason: execution.Exited}, Started: time.Now(), StateLost: code == "lose it",
		Session: execution.SessionInfo{ID: knownSession, Expires: expires},
	}
}

func (s *sessions) WriteFiles(ctx context.Context, id string, req execution.WriteRequest) error {
	req, err := req.Validate(ctx, limits)
	if err == nil {
		err = s.find(id)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, file := range req.Files {
		if err := s.write(ctx, file); err != nil {
			return err
		}
	}
	for req.More != nil {
		file, err := req.More(ctx)
		if execution.IsLast(err) {
			break
		}
		if err == nil {
			err = s.write(ctx, file)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *sessions) write(ctx context.Context, file execution.Input) error {
	content, err := file.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	data, err := io.ReadAll(content)
	switch {
	case err == nil && file.Folder:
		s.files[file.Path+"/"] = ""
	case err == nil && file.Executable:
		s.files[file.Path] = string(data) + " (executable)"
	case err == nil:
		s.files[file.Path] = string(data)
	}
	return err
}

func (s *sessions) ReadFile(ctx context.Context, id string, req execution.ReadRequest) error {
	err := req.Validate()
	if err == nil {
		err = s.find(id)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	data, found := s.files[req.Path]
	if !found {
		return &execution.Error{Code: execution.NotFound, Message: "File '" + req.Path + "' not found in the session"}
	}
	content := io.Reader(strings.NewReader(data))
	if s.torn == req.Path {
		content = io.MultiReader(content, torn{})
	}
	_, err = req.Keep(ctx, req.Path, content)
	return err
}

func (s *sessions) ListFiles(_ context.Context, id string, req execution.ListRequest) (execution.Listing, error) {
	req, err := req.Validate()
	if err == nil {
		err = s.find(id)
	}
	listing := execution.Listing{Session: execution.SessionInfo{ID: knownSession, Expires: expires}}
	for _, path := range slices.Sorted(maps.Keys(s.files)) {
		if path == req.Path || req.Path == "" || strings.HasPrefix(path, req.Path+"/") {
			listing.Entries = append(listing.Entries, execution.Entry{
				Path: path, Kind: execution.KindFile, Size: int64(len(s.files[path])), Modified: expires, Executable: strings.HasSuffix(path, ".sh"),
			})
		}
	}
	if err == nil && req.Path != "" && len(listing.Entries) == 0 {
		err = &execution.Error{Code: execution.NotFound, Message: "File '" + req.Path + "' not found in the session"}
	}
	if len(listing.Entries) > req.Most || s.cut {
		listing.Entries = listing.Entries[:min(req.Most, len(listing.Entries))]
		listing.Skipped = []execution.SkippedFile{{Reason: "there are more"}}
	}
	return listing, err
}

func (s *sessions) PackFolder(ctx context.Context, id string, req execution.PackRequest) error {
	if err := req.Validate(); err != nil {
		return err
	}
	listing, err := s.ListFiles(ctx, id, execution.ListRequest{Path: req.Path})
	if err != nil {
		return err
	}
	req.Entry(execution.Entry{Path: strings.TrimPrefix(req.Path+"/empty", "/"), Kind: execution.KindFolder, Modified: expires})
	for _, entry := range listing.Entries {
		content := io.Reader(strings.NewReader(s.files[entry.Path]))
		if s.torn == entry.Path {
			content = io.MultiReader(content, torn{})
		}
		req.Entry(entry)
		_, _ = req.Keep(ctx, entry.Path, content) // a file that cannot be kept is skipped
	}
	return nil
}

func (s *sessions) DeleteFile(_ context.Context, id, path string) error {
	err := execution.ReadRequest{Path: path}.Validate()
	if err == nil {
		err = s.find(id)
	}
	if _, found := s.files[path]; err == nil && !found {
		err = &execution.Error{Code: execution.NotFound, Message: "File '" + path + "' not found in the session"}
	}
	if err == nil {
		delete(s.files, path)
	}
	return err
}

func (s *sessions) RenameFile(_ context.Context, id string, req execution.RenameRequest) error {
	err := req.Validate()
	if err == nil {
		err = s.find(id)
	}
	if err == nil {
		s.files[req.Target] = s.files[req.Path]
		delete(s.files, req.Path)
	}
	return err
}

type torn struct{}

func (torn) Read([]byte) (int, error) { return 0, errors.New("the session is gone") }

func sessionsHandler(t *testing.T) (http.Handler, *sessions) {
	t.Helper()
	s := newSessions()
	opts := options(fails(errors.New("no run was asked for")))
	opts.Sessions = s
	return httpapi.NewHandler(opts), s
}

func TestSessionLives(t *testing.T) {
	h, s := sessionsHandler(t)
	known := `{"session_id": "` + knownSession + `", "expires_at": 1764000900.5}`
	serve(h, request("POST", "/v1/sessions", `{}`)).want(t, http.StatusCreated, known)
	serve(h, request("POST", "/v1/sessions", "")).want(t, http.StatusCreated, known)
	serve(h, request("POST", "/v1/sessions", "null")).want(t, http.StatusUnprocessableEntity,
		`{"detail":[{"type":"dict_type","loc":["body"],"msg":"expected object","input":null}]}`)
	if s.ttl != 0 {
		t.Errorf("the life without a body is %v: the manager knows the default", s.ttl)
	}
	serve(h, request("POST", "/v1/sessions", `{"ttl_seconds": 86400, "files": []}`)).want(t, http.StatusCreated, known)
	if s.ttl != 24*time.Hour {
		t.Errorf("the life is %v", s.ttl)
	}
	serve(h, request("GET", "/v1/sessions", "")).want(t, http.StatusOK, `{"sessions": [`+known+`]}`)
	serve(h, request("PATCH", "/v1/sessions/"+knownSession, `{"ttl_seconds": 60, "more": 1}`)).want(t, http.StatusOK,
		strings.TrimSuffix(known, "}")+`, "unknown_fields": ["more"]}`)
	if s.ttl != time.Minute {
		t.Errorf("the life is changed to %v", s.ttl)
	}
	if a := serve(h, request("DELETE", "/v1/sessions/"+knownSession, "")); a.status != http.StatusNoContent || a.body != "" {
		t.Errorf("deleting returns %d %s", a.status, a.body)
	}
}

// expires_at is a float in JSON, also at a whole second. It is rounded up.
func TestExpiresAtIsAFloat(t *testing.T) {
	h, s := sessionsHandler(t)
	for given, want := range map[time.Time]string{
		time.Unix(1_764_000_900, 0):           "1764000900.0",
		time.Unix(1_764_000_900, 1):           "1764000900.001",
		time.Unix(1_764_000_900, 250_000_000): "1764000900.25",
		time.Unix(1_764_000_900, 999_999_999): "1764000901.0",
	} {
		s.expires = given
		for _, r := range []*http.Request{request("POST", "/v1/sessions", `{}`), request("GET", "/v1/sessions", "")} {
			if a := serve(h, r); !strings.Contains(a.body, `"expires_at":`+want+`}`) {
				t.Errorf("%s, %v: %s", r.Method, given, a.body)
			}
		}
	}
}

func TestSessionCalls(t *testing.T) {
	h, _ := sessionsHandler(t)
	base := "/v1/sessions/" + knownSession
	serve(h, request("POST", base+"/bash", `{"cmd": "ls"}`)).want(t, http.StatusOK, `{"stdout": "1 30s ls", "stderr": "", "exit_code": 0,
		"timed_out": false, "duration_ms": 0, "end": {"reason": "exited"}, "usage": {"cpu_ms": 0, "peak_memory_bytes": 0}, "queue_ms": 0, "expires_at": 1764000900.5}`)
	serve(h, request("POST", base+"/bash", `{"cmd": "lose it", "timeout_ms": 1}`)).want(t, http.StatusOK, `{"stdout": "1 1ms lose it", "stderr": "",
		"exit_code": 0, "timed_out": false, "duration_ms": 0, "end": {"reason": "exited"}, "usage": {"cpu_ms": 0, "peak_memory_bytes": 0}, "queue_ms": 0,
		"state_lost": true, "expires_at": 1764000900.5}`)
	serve(h, request("POST", base+"/execute", `{"code": "lose it"}`)).want(t, http.StatusOK, `{"stdout": "0 2s lose it", "stderr": "", "exit_code": 0,
		"timed_out": false, "duration_ms": 0, "files": [], "skipped_files": [], "results": [], "end": {"reason": "exited"},
		"usage": {"cpu_ms": 0, "peak_memory_bytes": 0}, "queue_ms": 0, "state_lost": true, "expires_at": 1764000900.5}`)
	a := serve(h, request("POST", base+"/execute/stream", `{"code": "1", "env": {"A": "2"}, "args": ["x"]}`))
	if a.status != http.StatusOK || !strings.Contains(a.body, `"data":"0 2s 1 map[A:2] [\"x\"]"`) {
		t.Errorf("the stream is %d %s", a.status, a.body)
	}
	a = serve(h, request("POST", base+"/bash", `{"cmd": "ls", "env": {"A": "2"}, "args": ["x"]}`))
	if a.status != http.StatusOK || !strings.Contains(a.body, `"stdout":"1 30s ls map[A:2] [\"x\"]"`) {
		t.Errorf("the answer is %d %s", a.status, a.body)
	}
	a = serve(h, request("POST", base+"/execute/stream", `{"code": "1"}`))
	if a.status != http.StatusOK || !strings.Contains(a.body, `"data":"0 2s 1"`) || !strings.Contains(a.body, "event: result") ||
		!strings.Contains(a.body, `"expires_at":1764000900.5`) {
		t.Errorf("the stream is %d %s", a.status, a.body)
	}
}

func TestInvalidSessionRequests(t *testing.T) {
	h, _ := sessionsHandler(t)
	base := "/v1/sessions/" + knownSession
	for _, test := range []struct {
		method, path, body string
		status             int
		answer             string
	}{
		{"POST", "/v1/sessions", `{"ttl_seconds": 0}`, 422, `{"detail":[{"type":"greater_than_equal","loc":["body","ttl_seconds"],"msg":"expected number >= 1","input":0}]}`},
		{"POST", "/v1/sessions", `{"ttl_seconds": 86401}`, 422, `{"detail":[{"type":"less_than_equal","loc":["body","ttl_seconds"],"msg":"expected number <= 86400","input":86401}]}`},
		{"POST", "/v1/sessions", `{"ttl_seconds": "5"}`, 422, `{"detail":[{"type":"int_type","loc":["body","ttl_seconds"],"msg":"expected integer","input":"5"}]}`},
		{"POST", "/v1/sessions", `{"ttl_seconds": null}`, 422, `{"detail":[{"type":"int_type","loc":["body","ttl_seconds"],"msg":"ttl_seconds must be of type integer, not null","input":null}]}`},
		{"PATCH", base, `{"ttl_seconds": 0}`, 422, `{"detail":[{"type":"greater_than_equal","loc":["body","ttl_seconds"],"msg":"expected number >= 1","input":0}]}`},
		{"PATCH", base, `{"ttl_seconds": 86401}`, 422, `{"detail":[{"type":"less_than_equal","loc":["body","ttl_seconds"],"msg":"expected number <= 86400","input":86401}]}`},
		{"PATCH", base, `{"ttl_seconds": "5"}`, 422, `{"detail":[{"type":"int_type","loc":["body","ttl_seconds"],"msg":"expected integer","input":"5"}]}`},
		{"PATCH", base, `{"ttl_seconds": 1.5}`, 422, `{"detail":[{"type":"int_type","loc":["body","ttl_seconds"],"msg":"expected integer","input":1.5}]}`},
		{"PATCH", base, `{"ttl_seconds": null}`, 422, `{"detail":[{"type":"int_type","loc":["body","ttl_seconds"],"msg":"expected integer","input":null}]}`},
		{"PATCH", base, `{}`, 422, `{"detail":[{"type":"missing","loc":["body","ttl_seconds"],"msg":"ttl_seconds is required","input":{}}]}`},
		{"PATCH", "/v1/sessions/x", `{"ttl_seconds": 1}`, 404, `{"detail":"Session 'x' not found"}`},
		{"POST", "/v1/sessions", `{"files": [{"path": "/x", "content_base64": ""}]}`, 422, `{"detail":"File paths must be relative."}`},
		{"POST", "/v1/sessions", `{"files": [{"path": "x", "file_id": "y"}]}`, 404, `{"detail":"File with ID 'y' not found for path 'x'."}`},
		{"POST", base + "/bash", `{"cmd": ""}`, 422, `{"detail":[{"type":"value_error","loc":["body","cmd"],"msg":"cmd must not be empty","input":""}]}`},
		{"POST", base + "/bash", `{"cmd": 1}`, 422, `{"detail":[{"type":"string_type","loc":["body","cmd"],"msg":"expected string","input":1}]}`},
		{"POST", base + "/bash", `{"cmd": "ls", "timeout_ms": 60001}`, 422, `{"detail":"timeout_ms exceeds maximum of 60000 ms"}`},
		{"POST", base + "/bash", `{"cmd": "ls", "timeout_ms": 0}`, 422, `{"detail":[{"type":"greater_than_equal","loc":["body","timeout_ms"],"msg":"expected number >= 1","input":0}]}`},
		{"POST", base + "/bash", `{"cmd": "ls", "timeout_ms": null}`, 422, `{"detail":[{"type":"int_type","loc":["body","timeout_ms"],"msg":"timeout_ms must be of type integer, not null","input":null}]}`},
		{"POST", base + "/execute", `{"code": "1", "timeout_ms": 60001}`, 422, `{"detail":"timeout_ms exceeds maximum of 60000 ms"}`},
		{"POST", "/v1/sessions/..%2F..%2Fetc/bash", `{"cmd": "ls"}`, 404, `{"detail":"Session '../../etc' not found"}`},
		{"DELETE", "/v1/sessions/..%2F..%2Fetc", "", 404, `{"detail":"Session '../../etc' not found"}`},
		{"GET", "/v1/sessions/x/files/a", "", 404, `{"detail":"Session 'x' not found"}`},
		{"GET", base + "/files/a", "", 404, `{"detail":"File 'a' not found in the session"}`},
		{"DELETE", base + "/files/", "", 422, `{"detail":[{"type":"value_error","loc":["path","path"],"msg":"path must not be empty","input":""}]}`},
		{"GET", base + "/files?path=../x", "", 422, `{"detail":[{"type":"value_error","loc":["query","path"],"msg":"path must not contain \"..\"","input":"../x"}]}`},
		{"GET", base + "/files?format=zip", "", 422, `{"detail":[{"type":"value_error","loc":["query","format"],"msg":"format must be tar","input":"zip"}]}`},
		{"GET", base + "/files/x?format=zip", "", 422, `{"detail":[{"type":"value_error","loc":["query","format"],"msg":"format must be tar","input":"zip"}]}`},
		{"GET", "/v1/sessions/x/files", "", 404, `{"detail":"Session 'x' not found"}`},
		{"GET", base + "/files?path=none", "", 404, `{"detail":"File 'none' not found in the session"}`},
		{"GET", base + "/files/none/", "", 404, `{"detail":"File 'none' not found in the session"}`},
		{"DELETE", base + "/files/none", "", 404, `{"detail":"File 'none' not found in the session"}`},
		{"DELETE", base + "/files", "", 405, `{"detail":"Method Not Allowed"}`},
		{"PATCH", base + "/files/a", `{"path": "../x"}`, 422, `{"detail":[{"type":"value_error","loc":["body","path"],"msg":"path must not contain \"..\"","input":"../x"}]}`},
		{"PATCH", base + "/files/%2E%2E/a", `{"path": "x"}`, 422, `{"detail":[{"type":"value_error","loc":["path","path"],"msg":"path must not contain \"..\"","input":"../a"}]}`},
		{"PATCH", base + "/files/a", `{}`, 422, `{"detail":[{"type":"missing","loc":["body","path"],"msg":"path is required","input":null}]}`},
		{"PATCH", base + "/files/a", `{"path": null}`, 422, `{"detail":[{"type":"string_type","loc":["body","path"],"msg":"expected string","input":"null"}]}`},
		{"PATCH", base + "/files/a", `{"path": 5}`, 422, `{"detail":[{"type":"string_type","loc":["body","path"],"msg":"expected string","input":"5"}]}`},
		{"GET", base + "/files/%2E%2E/x", "", 422, `{"detail":[{"type":"value_error","loc":["path","path"],"msg":"path must not contain \"..\"","input":"../x"}]}`},
		{"GET", base + "/files/%2Fetc", "", 422, `{"detail":[{"type":"value_error","loc":["path","path"],"msg":"path must be relative to the workspace, not absolute","input":"/etc"}]}`},
		{"PUT", base + "/files/%2E%2E/x", "1", 422, `{"detail":[{"type":"value_error","loc":["path","path"],"msg":"path must not contain \"..\"","input":"../x"}]}`},
		{"PUT", base + "/files/a", strings.Repeat("x", maxFile+1), 413, `{"detail":"File size exceeds maximum of 1 MB"}`},
		{"PUT", base + "/files", "x", 422, `{"detail":[{"type":"value_error","loc":["header","Content-Type"],"msg":"Content-Type must be application/x-tar to write to a folder","input":"application/json"}]}`},
		{"GET", base + "/files//etc/passwd", "", 404, `{"detail":"Not Found"}`},
		{"GET", base + "/files/../x", "", 404, `{"detail":"Not Found"}`},
		{"POST", base + "/files/a/b", "{}", 405, `{"detail":"Method Not Allowed"}`},
		{"GET", base + "/bash", "", 405, `{"detail":"Method Not Allowed"}`},
		{"GET", base, "", 405, `{"detail":"Method Not Allowed"}`},
	} {
		t.Run(test.method+" "+test.path+" "+test.answer, func(t *testing.T) {
			serve(h, request(test.method, test.path, test.body)).want(t, test.status, test.answer)
		})
	}
}

func TestSessionFiles(t *testing.T) {
	h, s := sessionsHandler(t)
	path := "/v1/sessions/" + knownSession + "/files/data/r%20%22%C3%A9.bin"
	content := "\x00\xff any\r\nbytes"
	if a := serve(h, request("PUT", path, content)); a.status != http.StatusNoContent {
		t.Fatalf("writing returns %d %s", a.status, a.body)
	}
	if s.files[`data/r "é.bin`] != content {
		t.Fatalf("the files are %q", s.files)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request("GET", path, ""))
	if w.Code != http.StatusOK || w.Body.String() != content || w.Header().Get("Content-Type") != "application/octet-stream" {
		t.Errorf("reading returns %d %q %v", w.Code, w.Body, w.Header())
	}
	if got := w.Header().Get("Content-Disposition"); !strings.HasPrefix(got, `attachment; filename="r __.bin"`) {
		t.Errorf("the disposition is %s", got)
	}
}

// A file may have any name, even that of a route.
func TestSessionFilesOfAnyName(t *testing.T) {
	h, s := sessionsHandler(t)
	for _, path := range []string{"files", "data/files", "files/files", "execute", "a%2Ffiles"} {
		url := "/v1/sessions/" + knownSession + "/files/" + path
		if a := serve(h, request("PUT", url, path)); a.status != http.StatusNoContent {
			t.Errorf("writing %s returns %d %s", path, a.status, a.body)
		}
		if a := serve(h, request("GET", url, "")); a.status != http.StatusOK || a.body != path {
			t.Errorf("reading %s returns %d %s", path, a.status, a.body)
		}
	}
	if len(s.files) != 5 {
		t.Errorf("the files are %q", s.files)
	}
}

// A file that does not arrive whole is not written, and the client notices if the file
// that it reads is cut.
func TestSessionFilesCutShort(t *testing.T) {
	h, s := sessionsHandler(t)
	path := "/v1/sessions/" + knownSession + "/files/a"
	short := request("PUT", path, "12345")
	short.Body = io.NopCloser(io.MultiReader(strings.NewReader("123"), iotestErr{io.ErrUnexpectedEOF}))
	serve(h, short).want(t, http.StatusBadRequest, `{"detail": "the request body is cut short or its chunks are not valid"}`)
	chunked := request("PUT", path, "12345")
	chunked.ContentLength = -1
	serve(h, chunked).want(t, http.StatusLengthRequired, `{"detail": "the request must have a Content-Length"}`)
	if len(s.files) != 0 {
		t.Errorf("the files are %q", s.files)
	}
	s.files["a"], s.torn = "half", "a"
	defer func() {
		if cause := recover(); cause != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
			t.Errorf("the connection was not broken: %v", cause)
		}
	}()
	h.ServeHTTP(httptest.NewRecorder(), request("GET", path, ""))
}

// A client that stalls in either direction delays a call only until the call's context
// ends.
func TestSessionFilesStall(t *testing.T) {
	for _, method := range []string{"PUT", "GET"} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				over := make(chan time.Time, 1)
				opts := options(fails(errors.New("no run was asked for")))
				opts.Sessions = stalling{over: over}
				conn := newServerOf(t, httpapi.NewServer(opts)).dial()
				defer func() { _ = conn.Close() }()
				began := time.Now()
				if _, err := fmt.Fprintf(conn, "%s /v1/sessions/%s/files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nsome", method, knownSession); err != nil {
					t.Fatal(err)
				}
				if took := (<-over).Sub(began); took != time.Second {
					t.Errorf("the call was held up for %v", took)
				}
			})
		})
	}
}

// stalling ends the context of a call after a second, and reports when the call ends.
type stalling struct {
	httpapi.Sessions
	over chan time.Time
}

func (s stalling) ReadFile(ctx context.Context, _ string, req execution.ReadRequest) error {
	return s.stall(ctx, func(ctx context.Context) error {
		_, err := req.Keep(ctx, "a", strings.NewReader(strings.Repeat("x", 10<<20)))
		return err
	})
}

func (s stalling) WriteFiles(ctx context.Context, _ string, req execution.WriteRequest) error {
	return s.stall(ctx, func(ctx context.Context) error {
		content, err := req.Files[0].Open(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = content.Close() }()
		_, err = io.ReadAll(content)
		return err
	})
}

func (s stalling) stall(ctx context.Context, transfer func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := transfer(ctx)
	s.over <- time.Now()
	if err == nil {
		err = errors.New("the client neither sends nor reads, and all was transferred")
	}
	return err
}

// slowStart creates a session in more time than a body may take to arrive.
type slowStart struct{ *sessions }

func (s slowStart) Create(ctx context.Context, ttl time.Duration, files []execution.Input) (execution.SessionInfo, error) {
	select {
	case <-time.After(10 * time.Minute):
		return s.sessions.Create(ctx, ttl, files)
	case <-ctx.Done():
		return execution.SessionInfo{}, context.Cause(ctx)
	}
}

// A slow start is not cut, with a body or without.
func TestSlowStartIsNotCut(t *testing.T) {
	for name, body := range map[string]string{
		"no body": "Content-Length: 0\r\n\r\n", "not even a length": "\r\n",
		"a body": "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := options(fails(errors.New("no run was asked for")))
				opts.Sessions = slowStart{newSessions()}
				conn := newServerOf(t, httpapi.NewServer(opts)).dial()
				defer func() { _ = conn.Close() }()
				if _, err := io.WriteString(conn, "POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\n"+body); err != nil {
					t.Fatal(err)
				}
				if status := readStatus(t, bufio.NewReader(conn)); status != http.StatusCreated {
					t.Errorf("the status is %d", status)
				}
			})
		})
	}
}

// A body that was read in part cannot be sent to the session again.
func TestSessionFileIsReadOnce(t *testing.T) {
	opts := options(fails(errors.New("no run was asked for")))
	opts.Sessions = twice{}
	a := serve(httpapi.NewHandler(opts), request("PUT", "/v1/sessions/"+knownSession+"/files/a", "12345"))
	a.want(t, http.StatusServiceUnavailable, `{"detail": "the session does not answer; try again"}`)
}

// twice opens an input a second time.
type twice struct{ httpapi.Sessions }

func (twice) WriteFiles(ctx context.Context, _ string, req execution.WriteRequest) error {
	for again := range 2 {
		if req.Spent() != (again == 1) {
			return fmt.Errorf("before it is opened for time %d, it says the contrary", again+1)
		}
		content, err := req.Files[0].Open(ctx)
		if err != nil {
			return err
		}
		_, _ = content.Read(make([]byte, 3))
		_ = content.Close()
	}
	return nil // the second must fail
}

type iotestErr struct{ err error }

func (e iotestErr) Read([]byte) (int, error) { return 0, e.err }

func TestSessionsFull(t *testing.T) {
	h, s := sessionsHandler(t)
	s.fail = &execution.Error{Code: execution.Busy, Message: "there are 16 sessions"}
	a := serve(h, request("POST", "/v1/sessions", "{}"))
	a.want(t, http.StatusTooManyRequests, `{"detail": "there are 16 sessions"}`)
	if a.header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	s.fail = errors.New("a secret of the engine's")
	if a := serve(h, request("GET", "/v1/sessions", "")); a.status != http.StatusInternalServerError || bytes.Contains([]byte(a.body), []byte("secret")) {
		t.Errorf("listing returns %d %s", a.status, a.body)
	}
}
