// Package integration drives the built binary through the doors that users
// use, against a real engine. It starts everything it needs itself; the engine
// and the sandbox images must be there (go tool task setup).
package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	dockerclient "github.com/docker/docker/client"
)

const (
	slimImage = "vivarium/sandbox:slim"
	dataImage = "vivarium/sandbox:latest"
)

// patience is how long anything may take that a loaded machine does slowly.
const patience = time.Minute

// suite is what all tests share.
type suite struct {
	binary string
	engine *dockerclient.Client
	server *server // with the slim image; for tests that do not end it
}

var shared suite

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	folder, err := os.MkdirTemp("", "vivarium-integration-")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	shared.binary = filepath.Join(folder, "vivarium")
	build := exec.Command("go", "build", "-race", "-o", shared.binary, "..")
	if out, err := build.CombinedOutput(); err != nil {
		return fail(fmt.Errorf("go build: %w\n%s", err, out))
	}
	shared.engine, err = dockerclient.NewClientWithOpts(dockerclient.FromEnv, dockerclient.WithAPIVersionNegotiation())
	if err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, image := range []string{slimImage, dataImage} {
		if _, err := shared.engine.ImageInspect(ctx, image); err != nil {
			return fail(fmt.Errorf("the tests need an engine and the images (go tool task setup): %w", err))
		}
	}
	shared.server, err = start(nil)
	if err != nil {
		return fail(err)
	}
	defer func() {
		if err := shared.server.end(); err != nil {
			code = fail(err)
		}
	}()
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "integration:", err)
	return 1
}

// server is a running `vivarium serve`.
type server struct {
	url      string
	instance string
	process  *os.Process
	exited   chan error // gets the process's end, once

	mu  sync.Mutex
	log bytes.Buffer
}

// start starts a server on a free port and waits until it is healthy.
func start(env []string) (*server, error) { return startBinary(shared.binary, env) }

func startBinary(binary string, env []string) (*server, error) {
	s, err := launchBinary(binary, env)
	if err != nil {
		return nil, err
	}
	return s, s.awaitHealth()
}

// launch starts a server on a free port and waits until it listens.
func launch(env []string) (*server, error) { return launchBinary(shared.binary, env) }

func launchBinary(binary string, env []string) (*server, error) {
	cmd := exec.Command(binary, "serve")
	cmd.Env = append(os.Environ(), append([]string{
		"HOST=127.0.0.1", "PORT=0", "LOG_FORMAT=json", "PYTHON_EXECUTOR_DOCKER_IMAGE=" + slimImage,
	}, env...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{process: cmd.Process, exited: make(chan error, 1)}
	listening := make(chan struct{})
	go func() {
		s.readLog(stderr, listening)
		s.exited <- cmd.Wait()
	}()
	select {
	case <-listening:
		return s, nil
	case err := <-s.exited:
		return nil, fmt.Errorf("the server ended: %w\n%s", err, s.logged())
	case <-time.After(patience):
		return nil, errors.Join(errors.New("the server does not listen"), cmd.Process.Kill())
	}
}

func (s *server) readLog(stderr io.Reader, listening chan<- struct{}) {
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		s.mu.Lock()
		s.log.Write(append(lines.Bytes(), '\n'))
		s.mu.Unlock()
		var line struct{ Msg, Address, Instance string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "listening" {
			s.url, s.instance = "http://"+line.Address, line.Instance
			close(listening)
		}
	}
}

func (s *server) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

func (s *server) awaitHealth() error {
	var health struct{ Status, Message string }
	ok := poll(func() bool {
		resp, err := http.Get(s.url + "/health")
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		return json.NewDecoder(resp.Body).Decode(&health) == nil && health.Status == "ok"
	})
	if !ok {
		return fmt.Errorf("the server is not healthy: %s", health.Message)
	}
	return nil
}

// end ends the server as an init system does. It must leave with status 0, no
// container and no data race.
func (s *server) end() error {
	if err := s.process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := s.wait(); err != nil {
		return fmt.Errorf("the server ended badly: %w\n%s", err, s.logged())
	}
	if left := awaitContainers(s.instance, 0); left != 0 {
		return fmt.Errorf("%d containers are left", left)
	}
	return nil
}

func (s *server) wait() error {
	select {
	case err := <-s.exited:
		return err
	case <-time.After(patience):
		return errors.Join(errors.New("the server does not end"), s.process.Kill())
	}
}

// startServer starts a server of the test's own.
func startServer(t *testing.T, env ...string) *server {
	t.Helper()
	return startServerBinary(t, shared.binary, env...)
}

func startServerBinary(t *testing.T, binary string, env ...string) *server {
	t.Helper()
	s, err := startBinary(binary, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.end(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	})
	return s
}

// poll waits for a condition and says whether it came to hold.
func poll(holds func() bool) bool {
	const pause = 20 * time.Millisecond
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(pause) {
		if holds() {
			return true
		}
	}
	return false
}

// containers lists the containers of a server, running or not.
func containers(instance string) ([]container.Summary, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return shared.engine.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", "vivarium.instance="+instance)),
	})
}

// awaitContainers waits until a server has that many containers, and returns
// how many it has in the end.
func awaitContainers(instance string, want int) int {
	got := -1
	poll(func() bool {
		if list, err := containers(instance); err == nil {
			got = len(list)
		}
		return got == want
	})
	return got
}

// answer is what /v1/execute answers.
type answer struct {
	Stdout       string  `json:"stdout"`
	Stderr       string  `json:"stderr"`
	ExitCode     *int    `json:"exit_code"`
	TimedOut     bool    `json:"timed_out"`
	DurationMS   int     `json:"duration_ms"`
	QueueMS      int     `json:"queue_ms"`
	Files        []file  `json:"files"`
	SkippedFiles []skip  `json:"skipped_files"`
	Detail       any     `json:"detail"`
	Usage        usage   `json:"usage"`
	End          ending  `json:"end"`
	StateLost    bool    `json:"state_lost"`
	status       int     // of HTTP
	took         float64 // ms
}

type file struct {
	Path      string `json:"path"`
	Kind      string `json:"kind"`
	FileID    string `json:"file_id"`
	SizeBytes int64  `json:"size_bytes"`
}

type skip struct{ Path, Reason string }

type usage struct {
	CPUMS           int `json:"cpu_ms"`
	PeakMemoryBytes int `json:"peak_memory_bytes"`
}

type ending struct{ Reason, Signal, Message string }

// request is a body for /v1/execute.
type request map[string]any

// execute runs a request and gives its answer, whatever its status.
func (s *server) execute(ctx context.Context, body request) (*answer, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v1/execute", bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	started := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	a := &answer{status: resp.StatusCode}
	if err := json.NewDecoder(resp.Body).Decode(a); err != nil {
		return nil, err
	}
	a.took = float64(time.Since(started).Microseconds()) / 1000
	return a, nil
}

// mustRun runs a program that the service must take.
func mustRun(t *testing.T, s *server, body request) *answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := s.execute(ctx, body)
	if err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusOK {
		t.Fatalf("status %d: %v", a.status, a.Detail)
	}
	return a
}

func (a *answer) exitCode() string {
	if a.ExitCode == nil {
		return "null"
	}
	return fmt.Sprint(*a.ExitCode)
}

func (a *answer) paths() string {
	names := make([]string, len(a.Files))
	for i, f := range a.Files {
		names[i] = f.Path
	}
	return strings.Join(names, " ")
}

func getJSON(t *testing.T, url string, into any) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return json.NewDecoder(resp.Body).Decode(into)
}
