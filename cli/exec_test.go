package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// tree returns the files below a folder and what is in them.
func tree(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(folder, path)
		files[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// writeFiles saves files as a run's are saved that arrive one after the other.
func writeFiles(folder string, files []execution.File) error {
	out, err := newOutFolder(folder)
	if err != nil {
		return err
	}
	for _, file := range files {
		_, _ = out.keep(context.Background(), file.Path, bytes.NewReader(file.Content))
	}
	return out.close()
}

// A folder that cannot be made is an error before the run.
func TestOutFolderThatIsAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newOutFolder(file); err == nil {
		t.Error("no error")
	}
}

// Nothing is left of a file that did not arrive whole, nor of a run that failed.
func TestOutFolderKeepsNoParts(t *testing.T) {
	folder := t.TempDir()
	out, err := newOutFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	torn := errors.New("torn")
	if _, err := out.keep(t.Context(), "a", io.MultiReader(strings.NewReader("half"), iotest.ErrReader(torn))); !errors.Is(err, torn) {
		t.Errorf("the error is %v", err)
	}
	if _, err := out.keep(t.Context(), "b", strings.NewReader("whole")); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(map[string]string{"b": "whole"}, tree(t, folder)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	out.discard()
	if err := out.close(); err != nil || len(tree(t, folder)) > 0 {
		t.Errorf("%v, left is %v", err, tree(t, folder))
	}
}

func TestWriteFiles(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "made", "for", "it")
	files := []execution.File{
		{Path: "a.txt", Content: []byte("a")}, {Path: "d/e/b.bin", Content: []byte{0, 255}}, {Path: "empty"}, {Path: "d/c", Content: []byte("c")},
	}
	want := map[string]string{"a.txt": "a", "d/e/b.bin": "\x00\xff", "empty": "", "d/c": "c"}
	for range 2 { // the second time they are there already
		if err := writeFiles(folder, files); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, tree(t, folder)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// The program chooses names, and the folder may contain links: nothing outside of it is
// written.
func TestWriteFilesDoesNotEscape(t *testing.T) {
	for name, test := range map[string]struct {
		link, target string // in the folder; a target may start with OUTSIDE
		path         string
	}{
		"a parent":                    {"", "", "../secret"},
		"a parent, further on":        {"", "", "d/../../secret"},
		"an absolute path":            {"", "", "OUTSIDE/secret"},
		"a link to a folder":          {"link", "OUTSIDE", "link/secret"},
		"a link to a file":            {"link", "OUTSIDE/secret", "link"},
		"a link to a file to be made": {"link", "OUTSIDE/new", "link"},
		"a link to a parent":          {"link", "..", "link/outside/secret"},
		"a link to a folder, deeper":  {"link", "OUTSIDE", "link/new/file"},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			folder, outside := filepath.Join(base, "folder"), filepath.Join(base, "outside")
			for _, dir := range []string{folder, outside} {
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			if test.link != "" {
				if err := os.Symlink(strings.Replace(test.target, "OUTSIDE", outside, 1), filepath.Join(folder, test.link)); err != nil {
					t.Fatal(err)
				}
			}
			path := strings.Replace(test.path, "OUTSIDE", outside, 1)
			if err := writeFiles(folder, []execution.File{{Path: path, Content: []byte("overwritten")}}); err == nil {
				t.Error("no error")
			}
			want := map[string]string{"outside/secret": "secret"}
			if diff := cmp.Diff(want, tree(t, base)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// system returns a System that keeps what is printed.
func system(stdin string) (s System, stdout, stderr *bytes.Buffer) {
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	return System{
		Lookup: func(string) (string, bool) { return "", false }, Stdin: strings.NewReader(stdin), Stdout: stdout, Stderr: stderr,
	}, stdout, stderr
}

func TestShow(t *testing.T) {
	three, killed := 3, 137
	for name, test := range map[string]struct {
		result         execution.Result
		stdout, stderr string
		code           int
	}{
		"success": {
			execution.Result{Stdout: "out", ExitCode: new(int), End: execution.End{Reason: execution.Exited}}, "out", "", 0,
		},
		"failure": {
			execution.Result{Stdout: "out", Stderr: "err\n", ExitCode: &three, End: execution.End{Reason: execution.Exited}}, "out", "err\n", 3,
		},
		"timeout": {
			execution.Result{Stdout: "out", End: execution.End{Reason: execution.Timeout, Message: "stopped after 5 ms"}},
			"out", "vivarium: timeout: stopped after 5 ms\n", 124,
		},
		"memory": {
			execution.Result{ExitCode: &killed, End: execution.End{Reason: execution.MemoryLimit, Message: "too much"}},
			"", "vivarium: memory_limit: too much\n", 137,
		},
		"a signal": {
			execution.Result{ExitCode: &killed, End: execution.End{Reason: execution.Signal, Signal: "SIGKILL"}},
			"", "vivarium: signal SIGKILL\n", 137,
		},
		"a file": {
			execution.Result{ExitCode: new(int), End: execution.End{Reason: execution.Exited}, Files: make([]execution.File, 1)},
			"", "vivarium: 1 file written; --out FOLDER saves it\n", 0,
		},
		"files": {
			execution.Result{
				ExitCode: new(int), End: execution.End{Reason: execution.Exited}, Files: make([]execution.File, 2),
				Skipped: []execution.SkippedFile{{Path: "big", Reason: "it is big"}},
			},
			"", "vivarium: 2 files written; --out FOLDER saves them\nvivarium: not returned: big: it is big\n", 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, stdout, stderr := system("")
			err := execOptions{}.show(s, &test.result, nil)
			var code exitError
			if errors.As(err, &code); int(code) != test.code || (err == nil) != (test.code == 0) {
				t.Errorf("the error is %v", err)
			}
			if stdout.String() != test.stdout || stderr.String() != test.stderr {
				t.Errorf("stdout %q, stderr %q", stdout, stderr)
			}
		})
	}
}

// With --out nothing is said of files, and the exit code is the program's.
func TestShowWithSavedFiles(t *testing.T) {
	s, _, stderr := system("")
	three := 3
	err := execOptions{out: "folder"}.show(s, &execution.Result{
		ExitCode: &three, End: execution.End{Reason: execution.Exited}, Files: []execution.File{{Path: "d/a"}},
	}, nil)
	if code := exitError(0); !errors.As(err, &code) || code != 3 || stderr.Len() > 0 {
		t.Errorf("%v, stderr %q", err, stderr)
	}
}

func TestShowWithUnsavedFiles(t *testing.T) {
	s, _, _ := system("")
	err := execOptions{out: "folder"}.show(s, &execution.Result{ExitCode: new(int), End: execution.End{Reason: execution.Exited}}, io.ErrShortWrite)
	if err == nil || !strings.HasPrefix(err.Error(), "--out: ") {
		t.Errorf("the error is %v", err)
	}
}

// The command line becomes a request to the executor.
func TestExecRequest(t *testing.T) {
	t.Setenv("EXEC_TOKEN", "abc")
	folder := t.TempDir()
	code, data := filepath.Join(folder, "code.py"), filepath.Join(folder, "data.csv")
	for path, content := range map[string]string{code: "print(1)", data: "a,b"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		options execOptions
		args    []string
		want    execution.Request
	}{
		"code":            {execOptions{}, []string{"print(2)"}, execution.Request{Code: "print(2)", Interactive: true}},
		"empty code":      {execOptions{}, []string{""}, execution.Request{Interactive: true}},
		"from a file":     {execOptions{from: code}, nil, execution.Request{Code: "print(1)", Interactive: true}},
		"from stdin":      {execOptions{from: "-"}, nil, execution.Request{Code: "stdin", Interactive: true}},
		"stdin":           {execOptions{stdin: true}, []string{"c"}, execution.Request{Code: "c", Stdin: "stdin", Interactive: true}},
		"stdin left over": {execOptions{}, []string{"c"}, execution.Request{Code: "c", Interactive: true}},
		"timeout":         {execOptions{timeout: timeLimit(time.Second)}, []string{"c"}, execution.Request{Code: "c", Timeout: time.Second, Interactive: true}},
		"arguments":       {execOptions{from: code, args: []string{"-v", ""}}, nil, execution.Request{Code: "print(1)", Args: []string{"-v", ""}, Interactive: true}},
		"variables": {
			execOptions{env: []string{"A=1", "B=x=y", "C=", "A=2", "EXEC_TOKEN", "EXEC_UNSET"}},
			[]string{"c"},
			execution.Request{Code: "c", Interactive: true, Env: map[string]string{"A": "2", "B": "x=y", "C": "", "EXEC_TOKEN": "abc"}},
		},
		"no variable": {execOptions{env: []string{""}}, []string{"c"}, execution.Request{Code: "c", Interactive: true, Env: map[string]string{"": ""}}},
		"files": {
			execOptions{files: []string{data, data + ":in/other.csv"}},
			[]string{"c"},
			execution.Request{Code: "c", Interactive: true, Files: []execution.Input{
				{Path: "data.csv", Size: 3, Source: localFile(data)}, {Path: "in/other.csv", Size: 3, Source: localFile(data)},
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, _ := system("stdin")
			s.Lookup = os.LookupEnv
			got, err := test.options.request(s, test.args)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What precedes -- is the code, and what follows it are the program's own arguments.
func TestTakeArguments(t *testing.T) {
	for name, test := range map[string]struct {
		from            string
		args            []string
		dash            int
		code, arguments []string
		fails           bool
	}{
		"code":                  {"", []string{"c"}, -1, []string{"c"}, nil, false},
		"code and arguments":    {"", []string{"c", "a", "--b"}, 1, []string{"c"}, []string{"a", "--b"}, false},
		"a file":                {"f.py", nil, -1, nil, nil, false},
		"a file and arguments":  {"f.py", []string{"a", "b"}, 0, nil, []string{"a", "b"}, false},
		"a file, nothing more":  {"f.py", nil, 0, nil, nil, false},
		"code behind --":        {"", []string{"-1", "a"}, 0, []string{"-1"}, []string{"a"}, false},
		"nothing":               {"", nil, 0, nil, nil, false},
		"arguments without --":  {"", []string{"c", "a"}, -1, nil, nil, true},
		"one of two without --": {"f.py", []string{"c", "a", "b"}, 2, nil, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := execOptions{from: test.from}
			code, err := o.takeArguments(test.args, test.dash)
			if (err != nil) != test.fails || !slices.Equal(code, test.code) || !slices.Equal(o.args, test.arguments) {
				t.Errorf("code %q, arguments %q, %v", code, o.args, err)
			}
		})
	}
}

// A file that can be read only once is staged too.
func TestExecRequestWithAPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(pipe, []byte("piped"), 0o600) }()
	s, _, _ := system("")
	got, err := execOptions{files: []string{pipe}}.request(s, []string{"c"})
	if err := errors.Join(err, <-written); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]execution.Input{execution.Inline("pipe", []byte("piped"))}, got.Files); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The demo sends its program and data, and prints what comes back.
func TestDemo(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/v1/files/abc" {
			_, _ = io.WriteString(w, "x,y\n")
			return
		}
		var asked struct {
			Code  string
			Files []struct {
				Path    string
				Content []byte `json:"content_base64"`
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.Code != demoCode ||
			len(asked.Files) != 1 || asked.Files[0].Path != "sales.csv" || !bytes.Equal(asked.Files[0].Content, demoData) {
			t.Errorf("%s %s asked for %+v (%v)", r.Method, r.URL, asked, err)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"stdout": "a table\n", "duration_ms": 12, "queue_ms": 34,
			"files": []map[string]string{{"path": "revenue.csv", "file_id": "abc"}},
		})
	}))
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	s, stdout, _ := system("")
	address := server.Listener.Addr().String()
	showDemo(t.Context(), s, address)
	for _, want := range []string{
		"    import csv\n", "    a table\n", "and, in revenue.csv, from /v1/files/abc:\n\n    x,y\n", "(The program ran for 12 ms, after 34 ms of waiting.)", "curl -s http://" + address + "/v1/execute",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is not in:\n%s", want, stdout)
		}
	}
}

func TestDemoFails(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"detail": "no sandbox"}`, http.StatusServiceUnavailable)
	}))
	address := server.Listener.Addr().String()
	defer http.DefaultClient.CloseIdleConnections()
	for _, want := range []string{`503 Service Unavailable: {"detail": "no sandbox"}`, "connection refused"} {
		s, stdout, _ := system("")
		showDemo(t.Context(), s, address)
		if !strings.Contains(stdout.String(), "The example failed: ") || !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is not in:\n%s", want, stdout)
		}
		server.Close()
	}
}

func TestShowSaysWhatIsMissing(t *testing.T) {
	s, _, stderr := system("")
	_ = execOptions{}.show(s, &execution.Result{ExitCode: new(int), End: execution.End{Reason: execution.Exited, Message: "not all files could be fetched: x"}}, nil)
	if !strings.Contains(stderr.String(), "not all files") {
		t.Errorf("stderr %q", stderr)
	}
}
