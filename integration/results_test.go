package integration

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// made is a program that makes odd things of its workspace, in which in.txt
// ("in") and d/in.txt ("deep") are staged, and what must come of them.
type made struct {
	name    string
	code    string
	stdout  string
	files   map[string]string // each that is returned, and its content
	skipped map[string]string // each that is not, and a part of the reason
}

// What is in the workspace when the program has ended comes back as it is there,
// or is named with the reason why not: nothing from outside, and no half of it.
func TestResults(t *testing.T) {
	onBoth(t, checkResults)
}

// onBoth runs a test with a container for many runs, and with one for each.
func onBoth(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	t.Run("run", func(t *testing.T) { test(t, shared.server) })
	t.Run("container", func(t *testing.T) { test(t, startServer(t, "ISOLATION=container", "POOL_SIZE=2")) })
}

func checkResults(t *testing.T, s *server) {
	t.Helper()
	in, deep := s.upload(t, "in", "in"), s.upload(t, "deep", "deep")
	for _, m := range slices.Concat(links(), shapes(), usualPlaces()) {
		t.Run(m.name, func(t *testing.T) {
			a := mustRun(t, s, request{
				"code": "import os\n" + m.code + "\nNone", "timeout_ms": 10000,
				"files": []request{{"path": "in.txt", "file_id": in}, {"path": "d/in.txt", "file_id": deep}},
			})
			m.check(t, s, a)
		})
	}
}

func (m made) check(t *testing.T, s *server, a *answer) {
	t.Helper()
	if a.exitCode() != "0" || a.End.Message != "" || a.Stdout != m.stdout {
		t.Errorf("%s %+v, stdout %q, stderr %s", a.exitCode(), a.End, a.Stdout, a.Stderr)
	}
	got := make(map[string]string)
	for _, f := range a.Files {
		got[f.Path] = s.download(t, f.FileID)
		if want := m.files[f.Path]; got[f.Path] != want || f.SizeBytes != int64(len(want)) {
			t.Errorf("%s has %d bytes, %.40q; want %d, %.40q", f.Path, f.SizeBytes, got[f.Path], len(want), want)
		}
	}
	if len(got) != len(m.files) {
		t.Errorf("files are %q; want %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(m.files)))
	}
	for _, f := range a.SkippedFiles {
		if want, ok := m.skipped[f.Path]; !ok || !strings.Contains(f.Reason, want) {
			t.Errorf("%q was skipped: %s", f.Path, f.Reason)
		}
	}
	if len(a.SkippedFiles) != len(m.skipped) {
		t.Errorf("skipped are %+v; want %v", a.SkippedFiles, m.skipped)
	}
}

type byPath = map[string]string

// links lead to everywhere.
func links() []made {
	const link = "it is a link"
	return []made{
		{name: "to a file inside", code: "os.symlink('in.txt', 'l')", skipped: byPath{"l": link}},
		{
			name: "to what a run must not read", code: "for i, p in enumerate(('/etc/passwd', '/proc/1/environ', '/proc/self/fd/0', '/dev/zero', '..')): os.symlink(p, str(i))",
			skipped: byPath{"0": link, "1": link, "2": link, "3": link, "4": link},
		},
		{name: "in a loop", code: "os.symlink('a', 'b'); os.symlink('b', 'a')", skipped: byPath{"a": link, "b": link}},
		{name: "in the place of an input", code: "os.remove('in.txt'); os.symlink('/etc/passwd', 'in.txt')", skipped: byPath{"in.txt": link}},
		{name: "in the place of an input's folder", code: "os.remove('d/in.txt'); os.rmdir('d'); os.symlink('/etc', 'd')", skipped: byPath{"d": link}},
		{name: "to where an input's folder is now", code: "os.rename('d', 'e'); os.symlink('e', 'd')", files: byPath{"e/in.txt": "deep"}, skipped: byPath{"d": link}},
		// The kernel counts a new name as a change of the file.
		{name: "hard, to an input", code: "os.link('in.txt', 'h')", files: byPath{"h": "in", "in.txt": "in"}},
		{name: "hard, to an input that is gone", code: "os.link('in.txt', 'h'); os.remove('in.txt')", files: byPath{"h": "in"}},
		{name: "hard, to what is not the program's", code: `for p in ("/etc/passwd", "/usr/bin/env", "/proc/self/status"):
    try: os.link(p, "h")
    except OSError as e: print("refused")`, stdout: strings.Repeat("refused\n", 3)},
	}
}

// shapes are files of every kind, size and name.
func shapes() []made {
	zeros := strings.Repeat("\x00", 5<<20)
	long := strings.Repeat("n", 255)
	within := strings.Repeat("e/", 31) + "f"
	return []made{
		{name: "a sparse file", code: "open('s', 'wb').truncate(5 << 20)", files: byPath{"s": zeros}},
		{
			name: "sparse giants", code: "open('a', 'wb').truncate(10 << 30)\nopen('b', 'wb').truncate(50 << 20)\nopen('c', 'wb').write(b'small')",
			files: byPath{"c": "small"}, skipped: byPath{"a": "it has 10737418240 bytes, more than MAX_FILE_SIZE_MB, which is 100", "b": "more than MAX_RESULT_MB together, which is 20"},
		},
		{name: "devices", code: `import stat
for kind in (stat.S_IFCHR, stat.S_IFBLK):
    try: os.mknod("n", 0o666 | kind, os.makedev(1, 5))
    except PermissionError: print("refused")`, stdout: "refused\nrefused\n"},
		{
			name: "pipes and sockets in folders", code: "import socket\nos.mkfifo('d/p'); os.mkdir('e'); os.mknod('e/q', 0o010666); s = socket.socket(socket.AF_UNIX); s.bind('e/s'); s.listen()",
			skipped: byPath{"d/p": "not a regular file", "e/q": "not a regular file", "e/s": "not a regular file"},
		},
		{
			name: "a pipe in the place of an input, held open", code: "os.remove('in.txt'); os.mkfifo('in.txt'); fd = os.open('in.txt', os.O_RDWR); os.write(fd, b'x')",
			skipped: byPath{"in.txt": "not a regular file"},
		},
		{
			name: "odd names", code: `for n in ("new\nline", "tab\t", "\x1b[2J", "back\\slash", "\x7f", " ", "-rf", "..." , "é", "e\u0301", "n" * 255): open(n, "w").write("x")
for n in (b"\xff", b"a\xc3", b"\xed\xa0\x80"): open(n, "w").write("x")`,
			files: byPath{" ": "x", "-rf": "x", "...": "x", "é": "x", "e\u0301": "x", long: "x"},
			skipped: byPath{
				`new\x0aline`: "control", `tab\x09`: "control", `\x1b[2J`: "control", `back\slash`: "backslash", `\x7f`: "control",
				`\udcff`: "UTF-8", `a\udcc3`: "UTF-8", `\udced\udca0\udc80`: "UTF-8",
			},
		},
		{
			name: "as deep as can be, and deeper", code: "os.makedirs('e/' * 32); open('e/' * 31 + 'f', 'w').write('x'); open('e/' * 32 + 'f', 'w').write('x')",
			files: byPath{within: "x"}, skipped: byPath{strings.TrimSuffix(strings.Repeat("e/", 32), "/"): "folders deep"},
		},
		{
			name: "paths that are too long", code: "for i in range(5): os.mkdir('n' * 250); os.chdir('n' * 250)\nopen('f', 'w').write('x')",
			skipped: byPath{strings.Repeat("n", 100) + "...": "more than 1024 bytes"},
		},
		{
			name: "closed folders", code: "os.chmod('in.txt', 0); os.mkdir('e'); open('e/f', 'w').write('x'); os.chmod('e', 0); os.chmod('d', 0o111)",
			skipped: byPath{"in.txt": "permission denied", "e": "permission denied", "d": "permission denied"},
		},
		{name: "the program's own name", code: "open('__main__.py', 'w').write('x'); open('d/__main__.py', 'w').write('x')", files: byPath{"d/__main__.py": "x"}},
		{name: "files without a name", code: "f = open('gone', 'w'); f.write('x'); f.flush(); os.remove('gone'); g = os.open('.', os.O_TMPFILE | os.O_RDWR); os.write(g, b'x')"},
		{name: "an input that is rewritten as it was", code: "open('in.txt', 'w').write('in')", files: byPath{"in.txt": "in"}},
		{name: "an input that is touched as of old", code: "s = os.stat('in.txt'); open('in.txt', 'w').write('IN'); os.utime('in.txt', ns=(s.st_atime_ns, s.st_mtime_ns))", files: byPath{"in.txt": "IN"}},
	}
}

// usualPlaces are files where programs for other code interpreters put them.
func usualPlaces() []made {
	const elsewhere = "it is in /tmp, which is not returned"
	return []made{
		{
			name: "other names of the workspace", code: `for n, place in enumerate(("/mnt/data", "/home/user", "/content", "/output", "/app/output", "/data")):
    open(f"{place}/{n}.txt", "w").write(place)
print(open("/data/in.txt").read(), len(os.listdir("/mnt/data")))`, stdout: "in 9\n",
			files: byPath{"0.txt": "/mnt/data", "1.txt": "/home/user", "2.txt": "/content", "3.txt": "/output", "4.txt": "/app/output", "5.txt": "/data"},
		},
		{name: "names that cannot be replaced", code: `for place in ("/mnt/data", "/home/user", "/content", "/output", "/app/output", "/data"):
    for change in (os.unlink, os.rmdir, lambda p: os.rename(p, p + "-"), lambda p: os.symlink("/tmp", os.path.dirname(p) + "/new")):
        try: change(place); print(place)
        except OSError: pass`},
		{
			name: "files in /tmp", code: `import tempfile
os.makedirs("/tmp/a/b"); open("/tmp/a/b/c", "w"); open("/tmp/d.csv", "w").write("x"); open("/tmp/.hidden", "w"); os.mkdir("/tmp/empty")
open(tempfile.mkstemp()[1], "w"); open(tempfile.mkdtemp() + "/e", "w"); os.symlink("/etc/passwd", "/tmp/link")`,
			skipped: byPath{"/tmp/a/b/c": elsewhere, "/tmp/d.csv": elsewhere},
		},
		{name: "nothing in /tmp", code: "open('/tmp/gone', 'w'); os.remove('/tmp/gone'); os.makedirs('/tmp/.config/x')"},
		{name: "its own name", code: "import socket\nprint(socket.gethostbyname(socket.gethostname()), bool(socket.getfqdn()))", stdout: "127.0.0.1 True\n"},
	}
}

// leave has a Python function called again and again by a process that ignores
// all that can be ignored, and that nobody waits for.
const leave = `import os, signal
def leave(work):
    if os.fork() == 0:
        os.setsid()
        for n in range(1, 32):
            if n not in (9, 19): signal.signal(n, signal.SIG_IGN)
        if os.fork() == 0:
            while True: work()
        os._exit(0)
    os.wait()
`

// Whatever a program leaves behind is dead before its files are read: of two
// counters, one read before a large file and one after it, neither goes on.
func TestNobodyWritesWhatIsRead(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		t.Helper()
		a := mustRun(t, s, request{"timeout_ms": 10000, "code": leave + `
open("between", "wb").write(b"x" * (15 << 20))
before, later = (os.open(n, os.O_RDWR | os.O_CREAT) for n in ("a", "z"))
n = 0
def count():
    global n
    n += 1; text = b"%020d" % n; os.pwrite(before, text, 0); os.pwrite(later, text, 0)
leave(count)
while os.stat("z").st_size == 0: pass`})
		program{files: "a between z"}.check(t, a)
		if len(a.Files) != 3 || a.Files[1].SizeBytes != 15<<20 || a.End.Message != "" {
			t.Fatalf("%+v, %+v", a.Files, a.End)
		}
		before, err := strconv.Atoi(s.download(t, a.Files[0].FileID))
		later, err2 := strconv.Atoi(s.download(t, a.Files[2].FileID))
		if err := errors.Join(err, err2); err != nil || before-later < 0 || before-later > 1 {
			t.Errorf("one counter was read as %d, the other as %d: %v", before, later, err)
		}
	})
}

// Nor can a folder become a link to elsewhere while it is searched.
func TestNobodySwapsWhatIsSearched(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		t.Helper()
		for range 5 {
			a := mustRun(t, s, request{"timeout_ms": 10000, "code": leave + `
os.mkdir("e"); open("e/passwd", "w").write("mine")
def swap(): os.rename("e", "away"); os.symlink("/etc", "e"); os.remove("e"); os.rename("away", "e")
leave(swap)
while not os.path.exists("away"): pass`})
			if len(a.Files) != 1 || a.Files[0].Path != "e/passwd" && a.Files[0].Path != "away/passwd" || a.End.Message != "" {
				t.Fatalf("%+v, %+v", a.Files, a.End)
			}
			if got := s.download(t, a.Files[0].FileID); got != "mine" {
				t.Errorf("%s has %q", a.Files[0].Path, got)
			}
			for _, f := range a.SkippedFiles {
				if f.Path != "e" || f.Reason != "it is a link" {
					t.Errorf("skipped: %+v", f)
				}
			}
		}
	})
}
