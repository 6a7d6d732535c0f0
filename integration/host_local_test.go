package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
	dockerclient "github.com/docker/docker/client"
)

// localHost is this machine, whose sandboxes are processes with namespaces of
// their own. They go by the number of their PID 1 and the time of its start, as
// servers do.
type localHost struct {
	images map[string]string // folders with the unpacked images
	folder string            // the servers' temporary folder
	user   int               // whose servers are

	mu sync.Mutex
	// seen are sandboxes that were a server's children when the tests looked: when it
	// is dead, they are the children of somebody else.
	seen map[string][]string
}

var _ host = (*localHost)(nil)

func newLocalHost(images map[string]string, folder string, user int) *localHost {
	return &localHost{images: images, folder: folder, user: user, seen: make(map[string][]string)}
}

// unpack gives a folder with what is in an image. It stays for the next tests.
func unpack(ctx context.Context, engine *dockerclient.Client, image string) (string, error) {
	known, err := engine.ImageInspect(ctx, image)
	if err != nil {
		return "", err
	}
	folder := filepath.Join(os.TempDir(), fmt.Sprintf("vivarium-rootfs-%d-%s", os.Geteuid(), strings.TrimPrefix(known.ID, "sha256:")[:16]))
	if _, err := os.Stat(folder); err == nil {
		return folder, nil
	}
	made, err := engine.ContainerCreate(ctx, &container.Config{Image: known.ID}, nil, nil, nil, "")
	if err != nil {
		return "", err
	}
	defer func() {
		_ = engine.ContainerRemove(context.Background(), made.ID, container.RemoveOptions{Force: true})
	}()
	archive, err := engine.ContainerExport(ctx, made.ID)
	if err != nil {
		return "", err
	}
	defer func() { _ = archive.Close() }()
	half, err := os.MkdirTemp("", "vivarium-rootfs-half-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(half) }()
	tar := exec.CommandContext(ctx, "tar", "--extract", "--preserve-permissions", "--exclude=dev/*", "--directory", half)
	tar.Stdin = archive
	if out, err := tar.CombinedOutput(); err != nil {
		return "", fmt.Errorf("tar: %w: %s", err, out)
	}
	if err := os.Chmod(half, 0o755); err != nil { // MkdirTemp keeps it to us
		return "", err
	}
	return folder, os.Rename(half, folder)
}

func (h *localHost) environment(image string) []string {
	return []string{"EXECUTOR_BACKEND=local", "LOCAL_ROOTFS=" + h.images[image], "TMPDIR=" + h.folder}
}

func (h *localHost) sandboxes(instance string) ([]sandbox, error) {
	server, _, _ := strings.Cut(instance, "-")
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, entry := range entries {
		p, err := readProcess(entry.Name())
		if err == nil && p.parent == server && p.first && !slices.Contains(h.seen[instance], p.name) {
			h.seen[instance] = append(h.seen[instance], p.name)
		}
	}
	var list []sandbox
	for _, name := range h.seen[instance] {
		if p, ok := findProcess(name); ok {
			list = append(list, sandbox{name, p.python})
		}
	}
	return list, nil
}

// process is what the tests need of one.
type process struct {
	name, parent string
	first        bool // it is PID 1 of a sandbox, not of a namespace in one
	python       bool // it has become the supervisor
}

// readProcess reads what the kernel says of a process that has not ended.
func readProcess(pid string) (process, error) {
	if _, err := strconv.Atoi(pid); err != nil {
		return process{}, err
	}
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return process{}, err
	}
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return process{}, err
	}
	command, err := os.ReadFile("/proc/" + pid + "/cmdline")
	if err != nil {
		return process{}, err
	}
	// From the third field of proc_pid_stat(5) on: the second may hold anything.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if fields[0] == "Z" || fields[0] == "X" {
		return process{}, fs.ErrNotExist
	}
	p := process{name: pid + "-" + fields[19], parent: fields[1]}
	for line := range strings.Lines(string(status)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			inside := strings.Fields(numbers)
			p.first = len(inside) == 2 && inside[1] == "1"
		}
	}
	name, _, _ := strings.Cut(string(command), "\x00")
	p.python = strings.HasPrefix(filepath.Base(name), "python")
	if inPods() { // a pod that was reset is another sandbox: its PID 1 has executed itself, with a stack at another address
		p.name += "-" + fields[25]
	}
	return p, nil
}

// findProcess finds the process of a name, if it has not ended.
func findProcess(name string) (process, bool) {
	p, err := readProcess(pidOf(name))
	return p, err == nil && p.name == name
}

func pidOf(name string) string {
	pid, _, _ := strings.Cut(name, "-")
	return pid
}

// sessionRecord is what servers write down of a session.
type sessionRecord struct {
	Process string
	Groups  map[string]string
}

func (h *localHost) sessionFolder(id string) string {
	return filepath.Join(h.folder, fmt.Sprintf("vivarium-sessions-%d", h.user), id)
}

func (h *localHost) readSession(id string) (r sessionRecord, err error) {
	text, err := os.ReadFile(filepath.Join(h.sessionFolder(id), "session.json"))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return r, err
}

func (h *localHost) session(id string) ([]sandbox, error) {
	r, err := h.readSession(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if p, ok := findProcess(r.Process); err == nil && ok {
		return []sandbox{{r.Process, p.python}}, nil
	}
	return nil, err
}

// processes lists those of a sandbox: they see its mounts. None of them can make
// others for itself.
func (h *localHost) processes(sandbox string) ([]string, error) {
	mounts, err := os.Readlink("/proc/" + pidOf(sandbox) + "/ns/mnt")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []string
	for _, entry := range entries {
		if its, err := os.Readlink("/proc/" + entry.Name() + "/ns/mnt"); err == nil && its == mounts {
			pids = append(pids, entry.Name())
		}
	}
	return pids, nil
}

func (h *localHost) commands(sandbox string) ([]string, error) {
	pids, err := h.processes(sandbox)
	var commands []string
	for _, pid := range pids {
		if command, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && len(command) > 0 { // it may have ended
			commands = append(commands, strings.ReplaceAll(strings.TrimSuffix(string(command), "\x00"), "\x00", " "))
		}
	}
	return commands, err
}

func (h *localHost) exists(sandbox, path string) (bool, error) {
	_, err := os.Lstat("/proc/" + pidOf(sandbox) + "/root" + path)
	if errors.Is(err, fs.ErrNotExist) {
		_, there := findProcess(sandbox)
		if there {
			return false, nil
		}
	}
	return err == nil, err
}

func (h *localHost) cpuTime(sandbox string) (time.Duration, error) {
	pids, err := h.processes(sandbox)
	if err != nil {
		return 0, err
	}
	var used time.Duration
	for _, pid := range pids {
		threads, err := filepath.Glob("/proc/" + pid + "/task/*/schedstat")
		if err != nil {
			return 0, err
		}
		for _, thread := range threads {
			var ran time.Duration
			text, err := os.ReadFile(thread)
			if err == nil {
				_, err = fmt.Sscan(string(text), &ran)
			}
			if err != nil {
				return 0, err
			}
			used += ran
		}
	}
	return used, nil
}

func (h *localHost) kill(sandbox string) error { return h.signal(sandbox, syscall.SIGKILL) }

func (h *localHost) freeze(sandbox string) error { return h.signal(sandbox, syscall.SIGSTOP) }

func (h *localHost) thaw(sandbox string) error { return h.signal(sandbox, syscall.SIGCONT) }

// signal sends a signal to PID 1 of a sandbox.
func (h *localHost) signal(sandbox string, number syscall.Signal) error {
	if _, ok := findProcess(sandbox); !ok {
		return os.ErrProcessDone
	}
	pid, err := strconv.Atoi(pidOf(sandbox))
	if err != nil {
		return err
	}
	return syscall.Kill(pid, number)
}

func (h *localHost) endSession(id string) {
	r, err := h.readSession(id)
	if err != nil {
		return
	}
	_ = h.kill(r.Process) // it may have ended
	_ = os.RemoveAll(h.sessionFolder(id))
	for _, group := range r.Groups {
		poll(func() bool { return !errors.Is(os.Remove(group), syscall.EBUSY) })
	}
}

func (h *localHost) bury(string) {}

func (h *localHost) traces(instance string) (left []string) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		own := "vivarium-" + instance + "."
		// A scope of systemd's is the server's own, and goes with it.
		if err == nil && strings.HasPrefix(entry.Name(), own) && entry.Name() != own+"scope" {
			left = append(left, path)
		}
		return nil // other servers' go meanwhile
	})
	return left
}
