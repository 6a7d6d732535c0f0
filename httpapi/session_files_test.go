package httpapi_test

import (
	"archive/tar"
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const filesOfSession = "/v1/sessions/" + knownSession + "/files"

func TestSessionFilesAreListed(t *testing.T) {
	h, s := sessionsHandler(t)
	serve(h, request("GET", filesOfSession, "")).want(t, http.StatusOK, `{"files": [], "skipped_files": [], "truncated": false, "expires_at": 1764000900.5}`)
	maps.Copy(s.files, map[string]string{"a": "1", "data/b": "22"})
	a := `{"path": "a", "kind": "file", "size_bytes": 1, "modified_time": 1764000900.5}`
	b := `{"path": "data/b", "kind": "file", "size_bytes": 2, "modified_time": 1764000900.5}`
	for path, files := range map[string]string{
		"": a + "," + b, "/": a + "," + b, "?path=data": b, "?path=data/": b, "?path=a": a, "/data/": b, "/?path=a": a,
	} {
		serve(h, request("GET", filesOfSession+path, "")).want(t, http.StatusOK,
			`{"files": [`+files+`], "skipped_files": [], "truncated": false, "expires_at": 1764000900.5}`)
	}
	s.cut = true
	serve(h, request("GET", filesOfSession+"?path=a", "")).want(t, http.StatusOK,
		`{"files": [`+a+`], "skipped_files": [{"path": "", "reason": "there are more"}], "truncated": true, "expires_at": 1764000900.5}`)
}

// HEAD describes a file as GET does.
func TestSessionFileHead(t *testing.T) {
	h, s := sessionsHandler(t)
	maps.Copy(s.files, map[string]string{"a": "12345", "data/b": ""})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request("HEAD", filesOfSession+"/a", ""))
	if w.Code != http.StatusOK || w.Header().Get("Content-Length") != "5" || w.Header().Get("Last-Modified") != "Mon, 24 Nov 2025 16:15:00 GMT" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	for path, want := range map[string]int{
		"/none": 404, "/data": 422, "/data/": 200, "": 200, "/%2E%2E/x": 422, "/data?format=tar": 200, "/a?format=tar": 404, "/none?format=tar": 404,
	} {
		if a := serve(h, request("HEAD", filesOfSession+path, "")); a.status != want {
			t.Errorf("%s: %d", path, a.status)
		}
	}
}

func TestSessionFilesAreDeletedAndRenamed(t *testing.T) {
	h, s := sessionsHandler(t)
	maps.Copy(s.files, map[string]string{"a": "1", "b": "2"})
	for _, r := range []*http.Request{
		request("PATCH", filesOfSession+"/a", `{"path": "c/d", "more": 1}`), request("DELETE", filesOfSession+"/b", ""), request("DELETE", filesOfSession+"/c/d/", ""),
	} {
		if a := serve(h, r); a.status != http.StatusNoContent || a.body != "" {
			t.Errorf("%s %s: %d %s", r.Method, r.URL, a.status, a.body)
		}
	}
	if len(s.files) != 0 {
		t.Errorf("the files are %q", s.files)
	}
	r := request("PATCH", filesOfSession+"/a", "[")
	if a := serve(h, r); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `"json_invalid","loc":["body"]`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// A folder is an archive with names relative to it.
func TestSessionFoldersAreArchives(t *testing.T) {
	h, s := sessionsHandler(t)
	maps.Copy(s.files, map[string]string{"data/run.sh": "hi", "data/b/c": strings.Repeat("x", 100_000), "other": ""})
	byAccept := request("GET", filesOfSession+"/data", "")
	byAccept.Header.Set("Accept", "text/html, application/x-tar;q=0.9")
	for what, r := range map[string]*http.Request{
		"format": request("GET", filesOfSession+"/data?format=tar", ""), "slash": request("GET", filesOfSession+"/data/?format=tar", ""),
		"query": request("GET", filesOfSession+"?path=data&format=tar", ""), "Accept": byAccept,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/x-tar" || w.Header().Get("Content-Disposition") != `attachment; filename="data.tar"` {
			t.Fatalf("%s: %d %v", what, w.Code, w.Header())
		}
		archive := tar.NewReader(w.Body)
		for _, want := range []struct {
			name string
			mode int64
			size int
		}{{"empty/", 0o755, 0}, {"b/c", 0o644, 100_000}, {"run.sh", 0o755, 2}} {
			header, err := archive.Next()
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(archive)
			if err != nil || header.Name != want.name || header.Mode != want.mode || len(content) != want.size || !header.ModTime.Equal(expires.Truncate(1e9)) && header.ModTime.Unix() != expires.Unix()+1 {
				t.Errorf("%s: %+v, %v", what, header, err)
			}
		}
		if _, err := archive.Next(); err != io.EOF {
			t.Errorf("%s: more: %v", what, err)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request("GET", filesOfSession+"?format=tar", ""))
	if got := w.Header().Get("Content-Disposition"); got != `attachment; filename="workspace.tar"` {
		t.Errorf("the workspace is %s", got)
	}
	serve(h, request("GET", filesOfSession+"/none?format=tar", "")).want(t, http.StatusNotFound, `{"detail":"File 'none' not found in the session"}`)
	s.torn = "data/b/c"
	defer func() {
		if cause := recover(); cause != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
			t.Errorf("the connection was not broken: %v", cause)
		}
	}()
	h.ServeHTTP(httptest.NewRecorder(), request("GET", filesOfSession+"/data?format=tar", ""))
}

// archived returns an archive, and the request that unpacks it.
func unpack(path, archive string) *http.Request {
	r := request("PUT", filesOfSession+path, archive)
	r.Header.Set("Content-Type", "application/x-tar")
	return r
}

func archived(t *testing.T, headers ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, strings.Repeat("x", int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSessionArchivesAreUnpacked(t *testing.T) {
	archive := archived(t, tar.Header{Name: "./", Typeflag: tar.TypeDir}, tar.Header{Name: "./run.sh", Mode: 0o755, Size: 2},
		tar.Header{Name: "a/b..c/d", Size: 1}, tar.Header{Name: "empty/", Typeflag: tar.TypeDir})
	for path, folder := range map[string]string{"": "", "/": "", "/data": "data/", "/data/": "data/"} {
		h, s := sessionsHandler(t)
		r := unpack(path, archive)
		r.ContentLength = -1 // it need not be known
		if a := serve(h, r); a.status != http.StatusNoContent {
			t.Errorf("%q: %d %s", path, a.status, a.body)
		}
		want := map[string]string{folder + "run.sh": "xx (executable)", folder + "a/b..c/d": "x", folder + "empty/": ""}
		if !maps.Equal(s.files, want) {
			t.Errorf("%q: the files are %q", path, s.files)
		}
	}
}

func TestSessionArchivesAreRefused(t *testing.T) {
	var many []tar.Header
	for range 10_001 {
		many = append(many, tar.Header{Name: "x"})
	}
	for name, test := range map[string]struct {
		headers []tar.Header
		status  int
		answer  string
	}{
		"a link":      {[]tar.Header{{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "b"}}, 422, `{"detail":[{"type":"value_error","loc":["body","a"],"msg":"a is a symbolic link, which is not unpacked","input":"a"}]}`},
		"a hard link": {[]tar.Header{{Name: "a", Typeflag: tar.TypeLink, Linkname: "b"}}, 422, `{"detail":[{"type":"value_error","loc":["body","a"],"msg":"a is a hard link, which is not unpacked","input":"a"}]}`},
		"a device":    {[]tar.Header{{Name: "a", Typeflag: tar.TypeBlock}}, 422, `{"detail":[{"type":"value_error","loc":["body","a"],"msg":"a is a device, which is not unpacked","input":"a"}]}`},
		"a pipe":      {[]tar.Header{{Name: "a", Typeflag: tar.TypeFifo}}, 422, `{"detail":[{"type":"value_error","loc":["body","a"],"msg":"a is a pipe, which is not unpacked","input":"a"}]}`},
		"out of it":   {[]tar.Header{{Name: "a/../../b"}}, 422, `{"detail":[{"type":"value_error","loc":["body","a/../../b"],"msg":"a/../../b must not contain \"..\"","input":"a/../../b"}]}`},
		"absolute":    {[]tar.Header{{Name: "/a"}}, 422, `{"detail":[{"type":"value_error","loc":["body","/a"],"msg":"/a must be relative to the workspace, not absolute","input":"/a"}]}`},
		"reserved":    {[]tar.Header{{Name: "./__main__.py"}}, 422, `{"detail":[{"type":"value_error","loc":["body","__main__.py"],"msg":"__main__.py is reserved for the program itself","input":"__main__.py"}]}`},
		"too many":    {many, 422, `{"detail":[{"type":"value_error","loc":["body","x"],"msg":"x is one of more than 10000 entries","input":"x"}]}`},
		"too large":   {[]tar.Header{{Name: "a", Size: maxFile / 2}, {Name: "b", Size: maxFile}}, 413, `{"detail":"files take more than the workspace of 1 MB holds"}`},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := sessionsHandler(t)
			serve(h, unpack("", archived(t, test.headers...))).want(t, test.status, test.answer)
		})
	}
	h, _ := sessionsHandler(t)
	whole := archived(t, tar.Header{Name: "a", Size: 5000})
	serve(h, unpack("", whole[:3000])).want(t, 422, `{"detail":"the body ends early"}`)
	serve(h, unpack("", strings.Repeat("junk", 1000))).want(t, 422, `{"detail":[{"type":"value_error","loc":["body"],"msg":"the body must be a tar archive that is not compressed","input":null}]}`)
	serve(h, unpack("/%2E%2E/x", whole)).want(t, 422, `{"detail":[{"type":"value_error","loc":["path","path"],"msg":"path must not contain \"..\"","input":"../x"}]}`)
	serve(h, unpack("", whole+strings.Repeat("x", 30<<20))).want(t, 413, `{"detail":"File size exceeds maximum of 1 MB"}`)
}
