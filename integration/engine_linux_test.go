package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/docker/docker/api/types/container"
	dockerclient "github.com/docker/docker/client"
)

// ownEngine is a Docker Engine of a test's own, which it may kill. It lives in
// a network namespace of its own, so that it leaves the bridge of the other
// engine alone.
type ownEngine struct {
	folder string
	client *dockerclient.Client
	cmd    *exec.Cmd
	exited chan error
}

func (e *ownEngine) host() string { return "unix://" + filepath.Join(e.folder, "engine.sock") }

func newEngine(t *testing.T) *ownEngine {
	t.Helper()
	if _, err := exec.LookPath("dockerd"); err != nil || os.Geteuid() != 0 {
		t.Fatalf("this test starts a dockerd of its own, as root: uid %d, %v", os.Geteuid(), err)
	}
	folder, err := os.MkdirTemp("", "vivarium-engine-") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	e := &ownEngine{folder: folder}
	e.client, err = dockerclient.NewClientWithOpts(dockerclient.WithHost(e.host()), dockerclient.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	e.start(t)
	t.Cleanup(func() {
		if err := errors.Join(e.cmd.Process.Signal(syscall.SIGTERM), <-e.exited, unmountBelow(folder), os.RemoveAll(folder)); err != nil {
			t.Error(err)
		}
	})
	e.copyImage(t, slimImage)
	return e
}

func (e *ownEngine) start(t *testing.T) {
	t.Helper()
	log, err := os.Create(filepath.Join(e.folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(e.folder, "pid")) // of one that was killed
	e.cmd = exec.Command("dockerd", "--host", e.host(), "--data-root", filepath.Join(e.folder, "data"),
		"--exec-root", filepath.Join(e.folder, "exec"), "--pidfile", filepath.Join(e.folder, "pid"),
		"--bridge", "none", "--iptables=false", "--ip6tables=false")
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	e.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan<- error) {
		exited <- errors.Join(cmd.Wait(), log.Close())
	}(e.cmd, e.exited)
	if !poll(func() bool {
		_, err := e.client.Ping(t.Context())
		return err == nil
	}) {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("dockerd does not start:\n%s", text)
	}
}

// copyImage brings an image over from the shared engine.
func (e *ownEngine) copyImage(t *testing.T, image string) {
	t.Helper()
	saved, err := shared.engine.ImageSave(t.Context(), []string{image})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = saved.Close() }()
	loaded, err := e.client.ImageLoad(t.Context(), saved)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, loaded.Body) // its end is that of the loading
	if err := errors.Join(err, loaded.Body.Close()); err != nil {
		t.Fatal(err)
	}
}

// containerPIDs gives the host's ids of the first process of each container.
func (e *ownEngine) containerPIDs(t *testing.T) []int {
	t.Helper()
	list, err := e.client.ContainerList(t.Context(), container.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, c := range list {
		if inspected, err := e.client.ContainerInspect(t.Context(), c.ID); err == nil && inspected.State.Pid > 0 {
			pids = append(pids, inspected.State.Pid)
		}
	}
	return pids
}

// unmountBelow unmounts what a killed engine left mounted.
func unmountBelow(folder string) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[1], folder+"/") {
			if err := syscall.Unmount(fields[1], syscall.MNT_DETACH); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EINVAL) {
				return fmt.Errorf("unmount %s: %w", fields[1], err)
			}
		}
	}
	return nil
}

func alive(pids []int) (left []int) {
	for _, pid := range pids {
		if syscall.Kill(pid, 0) == nil {
			left = append(left, pid)
		}
	}
	return left
}

// When the engine is killed, its containers go on without it. Their
// supervisors hear nothing from the server any more and end them, the one that
// runs a program included. The server says what is wrong, and goes on when the
// engine is back.
func TestDockerDeadEngineLeavesNothing(t *testing.T) {
	engine := newEngine(t)
	s := startServer(t, "DOCKER_HOST="+engine.host(), "POOL_SIZE=2")
	run := runSleeper(context.Background(), s, 60)
	var pids []int
	if !poll(func() bool { pids = engine.containerPIDs(t); return len(pids) == 3 }) {
		t.Fatalf("%d containers run", len(pids))
	}
	if err := engine.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-engine.exited; err == nil {
		t.Error("the killed engine ended well")
	}
	if o := <-run; o.err != nil || o.a.End.Reason != "sandbox_lost" && o.a.status != 503 {
		t.Errorf("the run: %+v", o)
	}
	if !poll(func() bool { return len(alive(pids)) == 0 }) {
		t.Errorf("still alive: %v", alive(pids))
	}
	var health struct{ Status, Message string }
	if err := getJSON(t, s.url+"/health", &health); err != nil || health.Status != "error" {
		t.Errorf("health: %v %+v", err, health)
	}
	engine.start(t)
	if err := s.awaitHealth(); err != nil {
		t.Error(err)
	}
	program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
}
