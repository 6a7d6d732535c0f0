// Package integration drives the built binary through the doors that users
// use. It starts everything it needs itself; an engine and the sandbox images must
// be there (go tool task setup).
//
// With -backend=docker sandboxes are containers of the engine, with -backend=local
// processes of this machine, with the same images, unpacked, and with -backend=kubernetes pods
// of a cluster (go tool task cluster). All tests run with each, but for those that are named
// TestDocker, TestLocal, TestKubernetes and TestAgentSandbox, which needs the controller
// (scripts/cluster.sh agent-sandbox). With -user the
// servers are another user's, who may have no cgroups; then those that are named
// TestCgroup do not run.
package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	dockerclient "github.com/docker/docker/client"
)

var (
	backendFlag = flag.String("backend", "docker", "where sandboxes are made: docker, local or kubernetes")
	userFlag    = flag.Int("user", os.Geteuid(), "the user whose servers are, where that is another (local)")
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
	host   host
	server *server // with the slim image; for tests that do not end it
	data   *server // with the data image; see dataServer
	// startData starts that.
	startData sync.Once
	// eachProcess is set where limits of each process stand in for cgroups.
	eachProcess bool
}

var shared suite

func TestMain(m *testing.M) {
	flag.Parse()
	if rootfs := os.Getenv(aloneVariable); rootfs != "" {
		shared.host = newLocalHost(map[string]string{slimImage: rootfs}, os.TempDir(), os.Geteuid())
		os.Exit(m.Run())
	}
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	folder, err := os.MkdirTemp("", "vivarium-integration-")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	if shared.binary, err = buildServer(folder); err != nil {
		return fail(err)
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
	if err := chooseHost(ctx, folder); err != nil {
		return fail(err)
	}
	if cluster, ok := shared.host.(*kubernetesHost); ok {
		defer func() {
			if err := cluster.close(); err != nil {
				code = fail(err)
			}
		}()
	}
	shared.server, err = start(nil)
	if err != nil {
		return fail(err)
	}
	defer func() {
		err := shared.server.end()
		if shared.data != nil {
			err = errors.Join(err, shared.data.end())
		}
		if err != nil {
			code = fail(err)
		}
	}()
	return m.Run()
}

// buildServer builds the server, and gives the path of what starts it.
func buildServer(folder string) (string, error) {
	binary := filepath.Join(folder, "vivarium")
	ours := *userFlag == os.Geteuid()
	// Where there are no cgroups, memory is limited before the server has become a
	// sandbox, and the race detector takes more.
	race := "-race=" + strconv.FormatBool(ours)
	tags := map[string]string{"kubernetes": "k8s"}[*backendFlag]
	if out, err := exec.Command("go", "build", race, "-tags", tags, "-o", binary, "..").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	if ours {
		return binary, nil
	}
	// Whoever starts it, it is that user's.
	wrapper := filepath.Join(folder, "user", "vivarium")
	script := fmt.Sprintf("#!/bin/sh\nexec setpriv --reuid=%d --regid=%[1]d --clear-groups %s \"$@\"\n", *userFlag, binary)
	return wrapper, errors.Join(os.Chmod(folder, 0o755), os.Mkdir(filepath.Dir(wrapper), 0o755), os.WriteFile(wrapper, []byte(script), 0o755))
}

// chooseHost sees to it that servers make their sandboxes where the flag says, and
// that tests of the other place alone do not run.
func chooseHost(ctx context.Context, folder string) (err error) {
	others := "^TestLocal|^TestKubernetes|^TestAgentSandbox"
	switch *backendFlag {
	case "docker":
		shared.host = dockerHost{shared.engine}
	case "local":
		others = "^TestDocker|^TestKubernetes|^TestAgentSandbox"
		temporary := filepath.Join(folder, "tmp")
		// As /tmp is, whatever the umask.
		if err := errors.Join(os.Mkdir(temporary, 0o755), os.Chmod(temporary, os.ModeSticky|0o777)); err != nil {
			return err
		}
		images := make(map[string]string)
		for _, image := range []string{slimImage, dataImage} {
			if images[image], err = unpack(ctx, shared.engine, image); err != nil {
				return fmt.Errorf("unpacking %s: %w", image, err)
			}
		}
		shared.host = newLocalHost(images, temporary, *userFlag)
	case "kubernetes":
		others = "^TestDocker|^TestLocal"
		shared.host, err = newKubernetesHost(ctx, folder)
	default:
		err = fmt.Errorf("-backend is %q: must be docker, local or kubernetes", *backendFlag)
	}
	if err != nil {
		return err
	}
	if shared.eachProcess = *backendFlag == "kubernetes"; !shared.eachProcess {
		if shared.eachProcess, err = lacksCgroups(ctx); err != nil {
			return err
		}
	}
	if shared.eachProcess {
		others += "|^TestCgroup"
	}
	if skip := flag.Lookup("test.skip").Value; skip.String() != "" {
		others = skip.String() + "|" + others
	}
	return flag.Set("test.skip", others)
}

// lacksCgroups asks the doctor, who names what bounds sandboxes.
func lacksCgroups(ctx context.Context) (bool, error) {
	doctor := exec.CommandContext(ctx, shared.binary, "doctor")
	doctor.Env = append(os.Environ(), with(slimImage)...)
	out, err := doctor.CombinedOutput()
	if err != nil {
		return false, fmt.Errorf("vivarium doctor: %w\n%s", err, out)
	}
	return bytes.Contains(out, []byte("without cgroups")), nil
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

// startProcess starts a server on a free port and waits until it listens.
func startProcess(env []string) (*server, error) { return launchBinary(shared.binary, env) }

func launchBinary(binary string, env []string) (*server, error) {
	cmd := exec.Command(binary, "serve")
	var err error
	cmd.Env, err = adapt(slices.Concat(os.Environ(), with(slimImage, "HOST=127.0.0.1", "PORT=0", "LOG_FORMAT=json"), smallLimits(), env))
	if err != nil {
		return nil, err
	}
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

// smallLimits returns the limits of servers that tests do not give others: programs that
// reach them end soon. A test of a default sets the variable to nothing.
func smallLimits() []string {
	return []string{"MEMORY_LIMIT_MB=256", "CPU_TIME_LIMIT_SEC=5", "WORKSPACE_LIMIT_MB=64", "TMP_LIMIT_MB=64", "MAX_RESULT_MB=20"}
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
// sandbox, nothing else and no data race.
func (s *server) end() error {
	if err := s.process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := s.wait(); err != nil {
		return fmt.Errorf("the server ended badly: %w\n%s", err, s.logged())
	}
	if left := awaitSandboxes(s.instance, 0); left != 0 {
		return fmt.Errorf("%d sandboxes are left", left)
	}
	if left := shared.host.traces(s.instance); len(left) != 0 {
		return fmt.Errorf("the server has left %q", left)
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
		if t.Failed() {
			t.Logf("the server's log:\n%s", s.logged())
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

// patient returns a request that gives its program the time that slow machines need,
// unless it asks for another: some take seconds to fill the memory of a sandbox.
func patient(body request) request {
	all := request{"timeout_ms": 20_000}
	maps.Copy(all, body)
	return all
}

// mustRun runs a program that the service must take.
func mustRun(t *testing.T, s *server, body request) *answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := s.execute(ctx, patient(body))
	if err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusOK {
		t.Fatalf("status %d: %v", a.status, a.Detail)
	}
	return a
}

// skippedBeside returns the skipped files that are not in a folder, nor the folder itself.
func (a *answer) skippedBeside(folder string) []skip {
	return slices.DeleteFunc(slices.Clone(a.SkippedFiles), func(s skip) bool { return strings.HasPrefix(s.Path+"/", folder) })
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
