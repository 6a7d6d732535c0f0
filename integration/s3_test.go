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
	"strings"
	"testing"
	"time"
)

// gateway is an object store that speaks S3, over a folder.
type gateway struct {
	address string
	folder  string // that has a bucket's objects and parts of objects
}

const (
	gatewayKey    = "vivarium"
	gatewaySecret = "a-secret-of-the-tests"
)

// startGateway builds and starts an object store with one bucket.
func startGateway(t *testing.T) gateway {
	t.Helper()
	folder := t.TempDir()
	g := gateway{address: freeAddress(t), folder: filepath.Join(folder, "objects", "bucket")}
	sidecar := filepath.Join(folder, "sidecar")
	for _, made := range []string{g.folder, sidecar} {
		if err := os.MkdirAll(made, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(buildGateway(t, folder), "--port", g.address, "--health", "/health", "posix", "--sidecar", sidecar, filepath.Dir(g.folder))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+gatewayKey, "ROOT_SECRET_KEY="+gatewaySecret)
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
	if !poll(func() bool { return getStatus("http://"+g.address+"/health") == http.StatusOK }) {
		t.Fatal("the object store is not healthy")
	}
	return g
}

// buildGateway builds versitygw, which has a module file of its own: it needs
// more modules than we do.
func buildGateway(t *testing.T, folder string) string {
	t.Helper()
	binary := filepath.Join(folder, "versitygw")
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile=../tools/s3/go.mod", "-o", binary, "github.com/versity/versitygw/cmd/versitygw")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
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
func (g gateway) env(more ...string) []string {
	return append([]string{
		"FILE_STORAGE_URL=s3://bucket?region=us-east-1&use_path_style=true&prefix=files/&endpoint=http://" + g.address,
		"AWS_ACCESS_KEY_ID=" + gatewayKey, "AWS_SECRET_ACCESS_KEY=" + gatewaySecret,
		"MAX_FILE_SIZE_MB=20", "POOL_SIZE=1",
	}, more...)
}

// await waits until the bucket has that many objects and parts of objects.
func (g gateway) await(t *testing.T, what string, want func(n int) bool) {
	t.Helper()
	n := -1
	if !poll(func() bool { n = g.objects(); return want(n) }) {
		t.Fatalf("%s: %d objects", what, n)
	}
}

func none(n int) bool { return n == 0 }

func some(n int) bool { return n > 0 }

func (g gateway) objects() int {
	n := 0
	_ = filepath.WalkDir(g.folder, func(_ string, entry fs.DirEntry, err error) error {
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

// Files are kept in a bucket as in a folder, and servers share it.
func TestS3(t *testing.T) {
	g := startGateway(t)
	first, err := start(g.env())
	if err != nil {
		t.Fatal(err)
	}
	content := noise(17 << 20)
	large, small := first.upload(t, "large.bin", content), first.upload(t, "sm\u00e4ll", "123")
	second := startServer(t, g.env()...)
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
	g.await(t, "after all is deleted", none)
	t.Run("refused", func(t *testing.T) { refusedOnS3(t, g, second) })
	t.Run("expiry", func(t *testing.T) { expiryOnS3(t, g, second) })
	t.Run("faults", func(t *testing.T) { faultsOfS3(t, g) })
}

// Of an upload that is too large or breaks off, nothing is left.
func refusedOnS3(t *testing.T, g gateway, s *server) {
	t.Helper()
	form := "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n"
	body := form + noise(20<<20+1) + "\r\n--x--\r\n"
	status, answer := s.send(t, http.MethodPost, "/v1/files", "multipart/form-data; boundary=x", strings.NewReader(body))
	if status != http.StatusRequestEntityTooLarge || !strings.Contains(answer, "File size exceeds maximum of 20 MB") {
		t.Errorf("too large: %d %s", status, answer)
	}
	g.await(t, "too large", none)
	status, answer = s.send(t, http.MethodPost, "/v1/files", "multipart/form-data; boundary=x", strings.NewReader(form+noise(18<<20)))
	if status != http.StatusUnprocessableEntity {
		t.Errorf("cut short: %d %s", status, answer)
	}
	g.await(t, "cut short", none)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	head := fmt.Sprintf("POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n", len(body)-2)
	if _, err := io.WriteString(conn, head+body[:18<<20]); err != nil {
		t.Fatal(err)
	}
	g.await(t, "while it is written", some)
	_ = conn.Close()
	g.await(t, "broken off", none)
	if log := s.logged(); strings.Contains(log, `"level":"ERROR"`) {
		t.Error(log)
	}
}

// A file in a bucket expires, and the next sweep, such as a new server's first,
// removes it.
func expiryOnS3(t *testing.T, g gateway, s *server) {
	t.Helper()
	id := s.upload(t, "a", "x")
	began := time.Now()
	short := startServer(t, g.env("FILE_TTL_SEC=1")...)
	if !poll(func() bool { return getStatus(short.url+"/v1/files/"+id) == http.StatusNotFound }) {
		t.Errorf("it has not expired after %v", time.Since(began))
	}
	startServer(t, g.env("FILE_TTL_SEC=1")...)
	g.await(t, "expired", none)
	if status := getStatus(s.url + "/v1/files/" + id); status != http.StatusNotFound {
		t.Errorf("the other server still has it: %d", status)
	}
}

// What is wrong with a bucket is told at the start, with the setting's name and
// no secrets.
func faultsOfS3(t *testing.T, g gateway) {
	t.Helper()
	for url, want := range map[string]string{
		"s3://none?region=us-east-1&use_path_style=true&endpoint=http://" + g.address:  "there is no such bucket",
		"s3://bucket?region=us-east-1&use_path_style=true&endpoint=http://127.0.0.1:1": "connection refused",
		"s3://bucket?wrong=x":                 `unknown query parameter "wrong"`,
		"s3://a:" + gatewaySecret + "@bucket": "must be file:///FOLDER, s3://BUCKET",
	} {
		s, err := launch(g.env("FILE_STORAGE_URL=" + url))
		if err == nil {
			t.Errorf("%s: no error", url)
			_ = s.end()
			continue
		}
		if text := err.Error(); !strings.Contains(text, "FILE_STORAGE_URL") || !strings.Contains(text, want) || strings.Contains(text, gatewaySecret) {
			t.Errorf("%s: %v", url, err)
		}
	}
}
