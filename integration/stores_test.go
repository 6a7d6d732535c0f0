package integration

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// objectStore is one that the tests start, over a folder.
type objectStore struct {
	address string
	folder  string // that has a bucket's objects and, with S3, parts of objects
	server  string // the server's binary
	url     string // of the bucket, for a server
	// settings have a server find it.
	settings []string
	// partsShow says whether the folder has what of an upload has come so far.
	partsShow bool
	// faults are URLs that will not do, and what a server says.
	faults map[string]string
}

const (
	storeKey    = "vivarium"
	storeSecret = "a-secret-of-the-tests"
)

// startS3 builds and starts an object store that speaks S3, with one bucket.
func startS3(t *testing.T) objectStore {
	t.Helper()
	folder := t.TempDir()
	options := "?region=us-east-1&use_path_style=true&endpoint=http://"
	o := objectStore{address: freeAddress(t), folder: filepath.Join(folder, "objects", "bucket"), server: shared.binary, partsShow: true}
	o.url = "s3://bucket" + options + o.address + "&prefix=files/"
	o.settings = []string{"AWS_ACCESS_KEY_ID=" + storeKey, "AWS_SECRET_ACCESS_KEY=" + storeSecret}
	o.faults = map[string]string{
		"s3://none" + options + o.address:       "there is no such bucket",
		"s3://bucket" + options + "127.0.0.1:1": "connection refused",
		"s3://bucket?wrong=x":                   `unknown query parameter "wrong"`,
		"s3://a:" + storeSecret + "@bucket":     "must be file:///FOLDER, s3://BUCKET",
		"gs://bucket":                           "built without gs://",
	}
	sidecar := filepath.Join(folder, "sidecar")
	makeFolders(t, o.folder, sidecar)
	binary := buildStatic(t, "github.com/versity/versitygw/cmd/versitygw", "-modfile=../tools/stores/go.mod")
	cmd := exec.Command(binary, "--port", o.address, "--health", "/health", "posix", "--sidecar", sidecar, filepath.Dir(o.folder))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+storeKey, "ROOT_SECRET_KEY="+storeSecret)
	o.run(t, cmd, "/health")
	return o
}

// startGoogle builds and starts an object store that speaks as Google's does,
// with one bucket, and builds the server that can.
func startGoogle(t *testing.T) objectStore {
	t.Helper()
	o := objectStore{address: freeAddress(t), folder: filepath.Join(t.TempDir(), "bucket"), server: buildImageBinary(t), url: "gs://bucket?prefix=files/"}
	o.settings = []string{"STORAGE_EMULATOR_HOST=" + o.address}
	o.faults = map[string]string{
		"gs://none":                         "there is no such bucket",
		"gs://bucket?wrong=x":               `invalid query parameter "wrong"`,
		"gs://a:" + storeSecret + "@bucket": "must be file:///FOLDER, s3://BUCKET",
	}
	makeFolders(t, o.folder)
	binary := buildStatic(t, "github.com/fsouza/fake-gcs-server", "-modfile=../tools/stores/go.mod")
	host, port, err := net.SplitHostPort(o.address)
	if err != nil {
		t.Fatal(err)
	}
	o.run(t, exec.Command(binary, "-scheme", "http", "-host", host, "-port", port, "-public-host", o.address,
		"-external-url", "http://"+o.address, "-filesystem-root", filepath.Dir(o.folder), "-data", ""), "/_internal/healthcheck")
	return o
}

func makeFolders(t *testing.T, folders ...string) {
	t.Helper()
	for _, folder := range folders {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// run runs the store until the test's end.
func (o objectStore) run(t *testing.T, cmd *exec.Cmd, health string) {
	t.Helper()
	var log bytes.Buffer // read when the process has ended
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = cmd.Process.Kill(), cmd.Wait()
		if t.Failed() {
			t.Logf("the object store:\n%s", log.String())
		}
	})
	if !poll(func() bool { return getStatus("http://"+o.address+health) == http.StatusOK }) {
		t.Fatal("the object store is not healthy")
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func getStatus(url string) int {
	resp, err := http.Get(url)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// env has a server keep its files there.
func (o objectStore) env(more ...string) []string {
	return slices.Concat([]string{"FILE_STORAGE_URL=" + o.url, "MAX_FILE_SIZE_MB=20", "POOL_SIZE=1"}, o.settings, more)
}

// startServer starts a server that keeps its files there.
func (o objectStore) startServer(t *testing.T, more ...string) *server {
	t.Helper()
	return startServerBinary(t, o.server, o.env(more...)...)
}

// await waits until the bucket has that many objects and parts of objects.
func (o objectStore) await(t *testing.T, what string, want func(n int) bool) {
	t.Helper()
	n := -1
	if !poll(func() bool { n = o.objects(); return want(n) }) {
		t.Fatalf("%s: %d objects", what, n)
	}
}

func none(n int) bool { return n == 0 }

func some(n int) bool { return n > 0 }

func (o objectStore) objects() int {
	n := 0
	_ = filepath.WalkDir(o.folder, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			n++
		}
		return nil // what has gone meanwhile is none
	})
	return n
}

// noise is a file; from 16 MB on it is uploaded in parts.
func noise(size int) string {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	return string(data)
}

func TestS3(t *testing.T) { testObjectStore(t, startS3(t)) }

// The binary of the server's image knows Google's stores too.
func TestGoogle(t *testing.T) { testObjectStore(t, startGoogle(t)) }

// Files are kept in a bucket as in a folder, and servers share it.
func testObjectStore(t *testing.T, o objectStore) {
	t.Helper()
	first, err := startBinary(o.server, o.env())
	if err != nil {
		t.Fatal(err)
	}
	content := noise(17 << 20)
	large, small := first.upload(t, "large.bin", content), first.upload(t, "sm\u00e4ll", "123")
	second := o.startServer(t)
	for _, s := range []*server{first, second} {
		if s.download(t, large) != content || s.download(t, small) != "123" {
			t.Error("the files have changed")
		}
		if status, list := s.send(t, http.MethodGet, "/v1/files", "", nil); status != http.StatusOK || strings.Count(list, "file_id") != 2 || !strings.Contains(list, "smäll") {
			t.Errorf("listed: %d %s", status, list)
		}
	}
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	made := mustRun(t, second, request{
		"code":  "open('out.bin', 'wb').write(open('in.bin', 'rb').read()[::-1]); None",
		"files": []map[string]any{{"path": "in.bin", "file_id": small}},
	})
	if made.paths() != "out.bin" {
		t.Fatalf("files: %q; %s", made.paths(), made.Stderr)
	}
	if got := second.download(t, made.Files[0].FileID); got != "321" {
		t.Errorf("made: %q", got)
	}
	for _, id := range []string{large, small, made.Files[0].FileID} {
		if status, body := second.send(t, http.MethodDelete, "/v1/files/"+id, "", nil); status != http.StatusNoContent {
			t.Errorf("delete: %d %s", status, body)
		}
		if status, _ := second.send(t, http.MethodGet, "/v1/files/"+id, "", nil); status != http.StatusNotFound {
			t.Errorf("deleted: %d", status)
		}
	}
	o.await(t, "after all is deleted", none)
	t.Run("refused", func(t *testing.T) { refusedInBucket(t, o, second) })
	t.Run("expiry", func(t *testing.T) { expiryInBucket(t, o, second) })
	t.Run("faults", func(t *testing.T) { faultsOfBuckets(t, o) })
}

// Of an upload that is too large or breaks off, nothing is left.
func refusedInBucket(t *testing.T, o objectStore, s *server) {
	t.Helper()
	form := "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n"
	body := form + noise(20<<20+1) + "\r\n--x--\r\n"
	status, answer := s.send(t, http.MethodPost, "/v1/files", "multipart/form-data; boundary=x", strings.NewReader(body))
	if status != http.StatusRequestEntityTooLarge || !strings.Contains(answer, "File size exceeds maximum of 20 MB") {
		t.Errorf("too large: %d %s", status, answer)
	}
	o.await(t, "too large", none)
	for _, size := range []int{1 << 20, 18 << 20} { // in one piece, in parts
		status, answer = s.send(t, http.MethodPost, "/v1/files", "multipart/form-data; boundary=x", strings.NewReader(form+noise(size)))
		if status != http.StatusUnprocessableEntity {
			t.Errorf("cut short: %d %s", status, answer)
		}
		o.await(t, "cut short", none)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	head := fmt.Sprintf("POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n", len(body)-2)
	if _, err := io.WriteString(conn, head+body[:18<<20]); err != nil {
		t.Fatal(err)
	}
	if o.partsShow {
		o.await(t, "while it is written", some)
	}
	answered := s.uploads()
	_ = conn.Close()
	if !poll(func() bool { return s.uploads() > answered }) {
		t.Error("an upload that was broken off has no end")
	}
	o.await(t, "broken off", none)
	if log := s.logged(); strings.Contains(log, `"level":"ERROR"`) {
		t.Error(log)
	}
}

// uploads says how many uploads have come to an end.
func (s *server) uploads() int {
	return strings.Count(s.logged(), `"method":"POST","path":"/v1/files"`)
}

// A file in a bucket expires, and the next sweep, such as a new server's first,
// removes it.
func expiryInBucket(t *testing.T, o objectStore, s *server) {
	t.Helper()
	id := s.upload(t, "a", "x")
	began := time.Now()
	short := o.startServer(t, "FILE_TTL_SEC=1")
	if !poll(func() bool { return getStatus(short.url+"/v1/files/"+id) == http.StatusNotFound }) {
		t.Errorf("it has not expired after %v", time.Since(began))
	}
	o.startServer(t, "FILE_TTL_SEC=1")
	o.await(t, "expired", none)
	if status := getStatus(s.url + "/v1/files/" + id); status != http.StatusNotFound {
		t.Errorf("the other server still has it: %d", status)
	}
}

// What is wrong with a bucket is told at the start, with the setting's name and
// no secrets.
func faultsOfBuckets(t *testing.T, o objectStore) {
	t.Helper()
	for url, want := range o.faults {
		s, err := launchBinary(o.server, o.env("FILE_STORAGE_URL="+url))
		if err == nil {
			t.Errorf("%s: no error", url)
			_ = s.end()
			continue
		}
		if text := err.Error(); !strings.Contains(text, "FILE_STORAGE_URL") || !strings.Contains(text, want) || strings.Contains(text, storeSecret) {
			t.Errorf("%s: %v", url, err)
		}
	}
}
