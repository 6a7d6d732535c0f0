package integration

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/go-connections/nat"
)

// The data image has the whole stack, and Matplotlib finds its fonts indexed.
func TestDataImage(t *testing.T) {
	s := dataServer(t)
	a := mustRun(t, s, request{"timeout_ms": 60000, "code": `
import numpy, pandas, scipy.stats, seaborn, sklearn.linear_model, statsmodels.api, sympy, networkx
import openpyxl, xlsxwriter, PIL.Image, lxml.etree, bs4, requests, docx, pypdf, fpdf, yaml, tabulate, tqdm
import sys; print(sys.version_info[:2])`})
	program{stdout: "(3, 13)\n"}.check(t, a)

	a = mustRun(t, s, request{"timeout_ms": 60000, "code": `
import matplotlib, os, matplotlib.font_manager as fm
print(matplotlib.get_backend(), os.path.islink(matplotlib.get_cachedir() + "/" + [n for n in os.listdir(matplotlib.get_cachedir()) if "font" in n][0]))
import matplotlib.pyplot as plt
plt.plot([1, 2, 3]); plt.title("é"); plt.savefig("plot.png")`})
	program{stdout: "agg True\n", files: "plot.png"}.check(t, a)

	a = mustRun(t, s, request{
		"timeout_ms": 60000, "code": `
import pandas as pd
t = pd.read_csv("in.csv"); t["c"] = t.a * t.b; t.to_excel("out.xlsx"); int(t.c.sum())`,
		"files": []request{{"path": "in.csv", "content_base64": encode("a,b\n1,2\n3,4\n")}},
	})
	program{stdout: "14\n", files: "out.xlsx"}.check(t, a)
}

// What programs show is saved, whether the image's modules are imported ahead
// or by the program, and where each run has its own container.
func TestImagesShown(t *testing.T) {
	t.Run("ahead", func(t *testing.T) { checkShown(t, dataServer(t), slices.Concat(imported(), shown())) })
	for name, setting := range map[string]string{"late": "PRELOAD_MODULES=none", "container": "ISOLATION=container"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, with(dataImage, "POOL_SIZE=1", "MEMORY_LIMIT_MB=1024", "CPU_TIME_LIMIT_SEC=60", setting)...)
			checkShown(t, s, imported())
		})
	}
}

func checkShown(t *testing.T, s *server, list []program) {
	t.Helper()
	for _, p := range list {
		t.Run(p.name, func(t *testing.T) {
			a := mustRun(t, s, request{"timeout_ms": 60000, "code": p.code})
			p.check(t, a)
			assertPictures(t, s, a)
		})
	}
}

const plt = "import matplotlib.pyplot as plt\n"

// imported are programs that show something of each library that is changed when it is imported.
func imported() []program {
	return []program{
		{name: "show", code: plt + "import os; os.chdir('/tmp')\nplt.plot([1]); plt.figure(); plt.plot([2]); plt.show()\nprint(plt.get_fignums())\nplt.plot([3]); plt.show(block=False)", stdout: "[]\n", files: "figure-1.png figure-2.png figure-3.png"},
		{name: "show by another name", code: "from matplotlib.pyplot import *\nplot([1])\nshow()", files: "figure-1.png"},
		{name: "exception", code: plt + "f = plt.plot([1])\n1/0", exit: "1", stderr: "~ZeroDivisionError", files: "figure-1.png"},
		{name: "figure without pyplot", code: "from matplotlib.figure import Figure\nFigure()", stdout: "<Figure size 640x480 with 0 Axes>\n", files: "figure-1.png"},
		{name: "PIL", code: "from PIL import Image\nImage.new('RGB', (2, 2))", stdout: "~<PIL.Image.Image", files: "figure-1.png"},
		{name: "DataFrame", code: "import pandas as pd\npd.DataFrame({'a': [1]})", stdout: "   a\n0  1\n"},
		{name: "buffer, then file", code: plt + "import io\nb = io.BytesIO(); plt.plot([1]); plt.savefig(b)\nf = open('a.png', 'wb').write(b.getvalue())", files: "a.png"},
		{name: "IPython", code: "%matplotlib inline\nfrom IPython.display import Image, display\n" + plt + "plt.plot([1]); plt.savefig('a.png')\ndisplay(Image('a.png'))", stdout: "~Image object", files: "a.png"},
	}
}

// shown are more programs that show something, of libraries that have been changed.
func shown() []program {
	return []program{
		{name: "open figure", code: plt + "open('figure-1.png', 'wb').write(b'\\x89PNG')\nfor i in range(2): plt.figure()", files: "figure-1.png figure-2.png figure-3.png"},
		{name: "exit", code: plt + "f = plt.plot([1])\nimport sys; sys.exit(3)", exit: "3", files: "figure-1.png"},
		{name: "figure displayed", code: plt + "fig = plt.figure(); display(fig)\nfig", stdout: "<Figure size 640x480 with 0 Axes>\n<Figure size 640x480 with 0 Axes>\n", files: "figure-1.png"},
		{name: "closed", code: plt + "plt.plot([1]); plt.close()"},
		{name: "cannot be drawn", code: plt + "f = plt.figure(); t = f.text(0, 0, '$\\\\nonsense$')", stderr: "~an open figure could not be saved: ValueError"},
		{name: "in a child", code: "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import matplotlib.pyplot as plt; plt.plot([1]); plt.savefig(\"x.png\")']).returncode", stdout: "0\n", files: "x.png"},
		{name: "saved", code: plt + "plt.plot([1]); plt.savefig('a.png'); plt.show()", files: "a.png"},
		{name: "saved finer", code: plt + "plt.plot([1]); plt.savefig('a.png', dpi=200)", files: "a.png"},
		{name: "saved and changed", code: plt + "plt.plot([1]); plt.savefig('a.png'); plt.title('b');", files: "a.png figure-1.png"},
		{name: "saved elsewhere", code: plt + "plt.plot([1]); plt.savefig('/tmp/a.png')", files: "figure-1.png"},
		{name: "shown, then saved", code: plt + "fig, ax = plt.subplots(); display(fig); fig.savefig('a.png')", stdout: "~<Figure", files: "a.png"},
		{name: "buffer", code: plt + "import io\nplt.plot([1]); plt.savefig(io.BytesIO()); plt.close()", files: "figure-1.png"},
		{name: "semicolon", code: plt + "plt.plot([1, 2]);", files: "figure-1.png"},
		{name: "Image.show", code: "from PIL import Image\nImage.new('RGB', (30, 30), 'red').show()", files: "figure-1.png"},
		{name: "Image.show and save", code: "from PIL import Image\ni = Image.new('RGB', (30, 30), 'red'); i.show(); i.save('a.png')", files: "a.png"},
		{name: "Series", code: "import pandas as pd\npd.Series([1])", stdout: "0    1\ndtype: int64\n"},
	}
}

// assertPictures asserts that each picture is one.
func assertPictures(t *testing.T, s *server, a *answer) {
	t.Helper()
	for _, f := range a.Files {
		if data := s.download(t, f.FileID); !strings.HasPrefix(data, "\x89PNG") {
			t.Errorf("%s is no picture: %.20q", f.Path, data)
		}
	}
}

// The slim image has Python alone.
func TestSlimImage(t *testing.T) {
	program{exit: "1", stderr: "~No module named 'numpy'"}.check(t, mustRun(t, shared.server, request{"code": "import numpy"}))
}

// The supervisor's own tests run in a sandbox, as any program does.
func TestSupervisorUnits(t *testing.T) {
	var files []request
	var tests []string
	found, err := filepath.Glob("../execution/supervisor/*/*.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		files = append(files, request{"path": name, "content_base64": encode(string(text))})
		if strings.HasPrefix(name, "test_") {
			tests = append(tests, strings.TrimSuffix(name, ".py"))
		}
	}
	if len(tests) < 10 {
		t.Fatalf("found only %q", tests)
	}
	s := startSession(t, shared.server, request{"files": files}) // where all processes have the numbers that /proc shows
	for _, module := range tests {
		a := s.bash(t, "python3 -m unittest -v "+module)
		if a.exitCode() != "0" || !strings.Contains(a.Stderr, "\nOK\n") {
			t.Errorf("%s: exit code %s\n%s", module, a.exitCode(), a.Stderr)
		}
	}
}

// The server runs as a container: a static binary and nothing else, as an
// ordinary user with the engine's socket.
func TestDockerServerImage(t *testing.T) {
	url := runServerImage(t, serverImage(t), engineSocket(t))
	s := &server{url: url}
	if err := s.awaitHealth(); err != nil {
		t.Fatal(err)
	}
	program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
	if got := s.download(t, s.upload(t, "a.bin", "\x00\xff")); got != "\x00\xff" {
		t.Errorf("a file came back as %q", got)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/docs", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if page, err := io.ReadAll(resp.Body); err != nil || !bytes.Contains(page, []byte("Vivarium")) {
		t.Errorf("/docs: %v, %.100s", err, page)
	}
}

// engineSocket gives the engine's socket, for tests that mount it.
func engineSocket(t *testing.T) string {
	t.Helper()
	socket, ok := strings.CutPrefix(shared.engine.DaemonHost(), "unix://")
	if !ok {
		t.Fatalf("the engine is at %s: this test mounts its socket", shared.engine.DaemonHost())
	}
	return socket
}

var serverImageBuilt sync.Once

// serverImage gives the server's image, which the first test builds that asks.
func serverImage(t *testing.T) string {
	t.Helper()
	const image = "vivarium/server:integration"
	serverImageBuilt.Do(func() { buildServerImage(t, image) })
	return image
}

// buildStatic builds a command, static as the tasks build the server: they share
// what both compile. It gives the binary's path.
func buildStatic(t *testing.T, pkg string, flags ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "binary")
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", binary}, flags...)
	cmd := exec.CommandContext(t.Context(), "go", append(args, pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// buildImageBinary builds the binary of the server's image.
func buildImageBinary(t *testing.T) string {
	t.Helper()
	return buildStatic(t, "..", "-tags", "gs")
}

// buildServerImage builds ../Dockerfile around its binary.
func buildServerImage(t *testing.T, image string) {
	t.Helper()
	binary := buildImageBinary(t)
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	for name, path := range map[string]string{"Dockerfile": "../Dockerfile", "LICENSE": "../LICENSE", "bin/vivarium-image": binary} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	response, err := shared.engine.ImageBuild(t.Context(), &files, build.ImageBuildOptions{
		Version: build.BuilderV1, Tags: []string{image}, Remove: true, ForceRemove: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if log, err := io.ReadAll(response.Body); err != nil || !bytes.Contains(log, []byte("Successfully built")) {
		t.Fatalf("%v\n%s", err, log)
	}
}

// Files in a volume outlive the server's container. A volume that belongs to another
// user, as those of earlier versions do, is refused with what to do.
func TestDockerServerVolume(t *testing.T) {
	socket, binary := engineSocket(t), serverImage(t)
	files, err := shared.engine.VolumeCreate(t.Context(), volume.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shared.engine.VolumeRemove(context.Background(), files.Name, true); err != nil {
			t.Error(err)
		}
	})
	mount := files.Name + ":/files"
	var id string
	t.Run("new", func(t *testing.T) {
		s := &server{url: runServerImage(t, binary, socket, mount)}
		if err := s.awaitHealth(); err != nil {
			t.Fatal(err)
		}
		id = s.upload(t, "a.bin", "\x00\xff")
	})
	t.Run("again", func(t *testing.T) {
		s := &server{url: runServerImage(t, binary, socket, mount)}
		if err := s.awaitHealth(); err != nil {
			t.Fatal(err)
		}
		if got := s.download(t, id); got != "\x00\xff" {
			t.Errorf("the file came back as %q", got)
		}
	})
	runOnce(t, &container.Config{Image: slimImage, User: "0", Entrypoint: []string{"chown", "-R", "65532", "/files"}}, &container.HostConfig{Binds: []string{mount}}, 0)
	log := runOnce(t, &container.Config{Image: binary}, besideEngine(t, socket, mount), 1)
	if want := "/files belongs to uid 65532, who can replace /files/vivarium-files-65533 in it: run `chown 65533 /files`"; !strings.Contains(log, "FILE_STORAGE_DIR: ") || !strings.Contains(log, want) {
		t.Errorf("%q is not in the log:\n%s", want, log)
	}
}

// runOnce runs a container to its end, which must have a status, and gives its log.
func runOnce(t *testing.T, config *container.Config, host *container.HostConfig, status int64) string {
	t.Helper()
	made, err := shared.engine.ContainerCreate(t.Context(), config, host, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := shared.engine.ContainerRemove(context.Background(), made.ID, container.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	}()
	if err := shared.engine.ContainerStart(t.Context(), made.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	ended, failed := shared.engine.ContainerWait(t.Context(), made.ID, container.WaitConditionNotRunning)
	select {
	case err := <-failed:
		t.Fatal(err)
	case end := <-ended:
		if end.StatusCode != status {
			t.Errorf("it ended with status %d", end.StatusCode)
		}
	}
	return containerLog(t.Context(), made.ID)
}

// runServerImage runs the image and gives its address on the loopback.
func runServerImage(t *testing.T, image, socket string, mounts ...string) string {
	t.Helper()
	host := besideEngine(t, socket, mounts...)
	host.PortBindings = nat.PortMap{"8000/tcp": {{HostIP: "127.0.0.1", HostPort: "0"}}}
	made, err := shared.engine.ContainerCreate(t.Context(), &container.Config{
		Image: image, Env: []string{"PYTHON_EXECUTOR_DOCKER_IMAGE=" + slimImage, "POOL_SIZE=1"},
		ExposedPorts: nat.PortSet{"8000/tcp": {}},
	}, host, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endServerContainer(t, made.ID) })
	if err := shared.engine.ContainerStart(t.Context(), made.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	c, err := shared.engine.ContainerInspect(t.Context(), made.ID)
	if err != nil {
		t.Fatal(err)
	}
	return "http://127.0.0.1:" + c.NetworkSettings.Ports["8000/tcp"][0].HostPort
}

// besideEngine gives a container the engine's socket, and mounts.
func besideEngine(t *testing.T, socket string, mounts ...string) *container.HostConfig {
	t.Helper()
	info, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	return &container.HostConfig{Binds: append(mounts, socket+":/var/run/docker.sock"), GroupAdd: []string{groupOf(info)}}
}

// endServerContainer stops the server as an orchestrator does: it must leave
// with status 0 and take its sandboxes with it.
func endServerContainer(t *testing.T, id string) {
	t.Helper()
	ctx := context.Background()
	log := containerLog(ctx, id)
	grace := 30
	if err := shared.engine.ContainerStop(ctx, id, container.StopOptions{Timeout: &grace}); err != nil {
		t.Error(err)
	}
	if c, err := shared.engine.ContainerInspect(ctx, id); err != nil || c.State.ExitCode != 0 {
		t.Errorf("it ended badly: %v %+v\n%s", err, c.State, containerLog(ctx, id))
	}
	for line := range strings.Lines(log) {
		if _, instance, ok := strings.Cut(strings.TrimSpace(line), "instance="); ok {
			assertGone(t, instance)
		}
	}
	if err := shared.engine.ContainerRemove(ctx, id, container.RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
}

func containerLog(ctx context.Context, id string) string {
	stream, err := shared.engine.ContainerLogs(ctx, id, container.LogsOptions{ShowStderr: true, ShowStdout: true})
	if err != nil {
		return fmt.Sprint(err)
	}
	defer func() { _ = stream.Close() }()
	text, _ := io.ReadAll(stream)
	return string(text)
}

// The description of the API that the server serves is the one in docs.
func TestOpenAPIIsServed(t *testing.T) {
	var spec struct {
		OpenAPI string
		Paths   map[string]json.RawMessage
	}
	if err := getJSON(t, shared.server.url+"/openapi.json", &spec); err != nil {
		t.Fatal(err)
	}
	if spec.OpenAPI != "3.1.0" || spec.Paths["/v1/execute"] == nil || spec.Paths["/health"] == nil {
		t.Errorf("got %+v", spec)
	}
}
