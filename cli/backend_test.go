package cli_test

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// systemPython sets LOCAL_PYTHON to the system's, since PATH may have another.
const systemPython = "LOCAL_PYTHON=/usr/bin/python3"

// Without an engine a program runs too, and the command prints nothing else.
func TestExecWithoutEngine(t *testing.T) {
	for _, backend := range []string{"auto", "local"} {
		o := run(t, []string{"EXECUTOR_BACKEND=" + backend, systemPython}, "", "exec", "print(6*7)")
		if o.code != 0 || o.stdout != "42\n" || o.stderr != "" {
			t.Errorf("%s: %+v", backend, o)
		}
	}
}

// Settings of other servers that have no effect are accepted, with a line in the log.
func TestIgnoredSettings(t *testing.T) {
	for setting, want := range map[string]string{
		"PYTHON_EXECUTOR_DOCKER_BIN=/usr/bin/docker":             "PYTHON_EXECUTOR_DOCKER_BIN has no effect",
		"PYTHON_EXECUTOR_DOCKER_RUN_ARGS=--env A=1 --privileged": "PYTHON_EXECUTOR_DOCKER_RUN_ARGS has no effect",
	} {
		o := run(t, []string{"EXECUTOR_BACKEND=local", systemPython, setting}, "", "exec", "print(6*7)")
		if o.code != 0 || o.stdout != "42\n" || strings.Count(o.stderr, want) != 1 || strings.Count(o.stderr, "\n") != 1 {
			t.Errorf("%s: %+v", setting, o)
		}
	}
	o := run(t, []string{"EXECUTOR_BACKEND=auto", systemPython, "PYTHON_EXECUTOR_DOCKER_RUN_ARGS=--env A=1"}, "", "exec", "print(6*7)")
	if o.code != 0 || o.stdout != "42\n" || strings.Count(o.stderr, "PYTHON_EXECUTOR_DOCKER_RUN_ARGS has no effect") != 1 {
		t.Errorf("undecided: %+v", o)
	}
	run(t, []string{"PYTHON_EXECUTOR_DOCKER_RUN_ARGS=--privileged"}, "", "serve").
		want(t, 1, "PYTHON_EXECUTOR_DOCKER_RUN_ARGS has --privileged, which is refused: it would open the sandbox")
}

// An empty LOG_LEVEL counts as unset: the program's stderr has no lines of the log.
func TestExecWithEmptyLogLevel(t *testing.T) {
	o := run(t, []string{"EXECUTOR_BACKEND=auto", systemPython, "LOG_LEVEL="}, "", "exec", "print(6*7)")
	if o.code != 0 || o.stdout != "42\n" || o.stderr != "" {
		t.Errorf("%+v", o)
	}
}

// If neither backend is available, the message has the reasons for both.
func TestNoBackend(t *testing.T) {
	const nobody = "LOCAL_PYTHON=/nonexistent/python3"
	run(t, []string{"EXECUTOR_BACKEND=auto", nobody}, "", "serve").
		want(t, 1, "Docker Engine does not answer at "+nowhere, `LOCAL_PYTHON is "/nonexistent/python3"`)
	run(t, []string{"EXECUTOR_BACKEND=local", nobody}, "", "serve").want(t, 1, `LOCAL_PYTHON is "/nonexistent/python3"`)
	run(t, []string{"EXECUTOR_BACKEND=auto", nobody}, "", "exec", "pass").
		want(t, 125, "Docker Engine does not answer at "+nowhere, `LOCAL_PYTHON is "/nonexistent/python3"`)
}

// Settings that need an engine are never ignored.
func TestSettingsThatNeedAnEngine(t *testing.T) {
	for _, setting := range []string{
		"PYTHON_EXECUTOR_DOCKER_IMAGE=python:3.13", "PYTHON_EXECUTOR_DOCKER_NETWORK=bridge", "PYTHON_EXECUTOR_DOCKER_RUNTIME=runsc",
	} {
		o := run(t, []string{"EXECUTOR_BACKEND=auto", systemPython, setting}, "", "exec", "pass")
		if o.code != 125 || !strings.Contains(o.stderr, "Docker Engine does not answer") {
			t.Errorf("%s: %+v", setting, o)
		}
	}
}

// The decision at the start stays, even if an engine starts later.
func TestDecisionIsKept(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "engine.sock")
	address, stop := started(t, "EXECUTOR_BACKEND=auto", systemPython, "DOCKER_HOST=unix://"+socket)
	defer http.DefaultClient.CloseIdleConnections()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	engine := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the engine is asked: %s", r.URL)
	})}
	go func() { _ = engine.Serve(listener) }()
	defer func() { _ = engine.Close() }()
	resp, err := http.Post("http://"+address+"/v1/execute", "application/json", strings.NewReader(`{"code": "print(6*7)"}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if body := get(t, "http://"+address+"/health"); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"backend":"local"`) || !strings.Contains(body, `"status":"ok"`) {
		t.Errorf("execute: %s; /health: %s", resp.Status, body)
	}
	if code := stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// The limits follow the machine of the engine, where that answers.
func TestLimitsFollowTheEnginesMachine(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "engine.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	engine := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		_, _ = io.WriteString(w, `{"MemTotal": 1073741824, "NCPU": 6}`)
	})}
	go func() { _ = engine.Serve(listener) }()
	defer func() { _ = engine.Close() }()
	for _, backend := range []string{"auto", "docker"} {
		for setting, want := range map[string]string{
			"WORKSPACE_LIMIT_MB=300": "WORKSPACE_LIMIT_MB is 300: must be at most MEMORY_LIMIT_MB, which is 256 unless it is set",
			"POOL_SIZE=25":           "POOL_SIZE is 25: must be at most MAX_SANDBOXES, which is 24 unless it is set",
		} {
			o := run(t, []string{"EXECUTOR_BACKEND=" + backend, "DOCKER_HOST=unix://" + socket, setting}, "", "stdio")
			if o.code == 0 || !strings.Contains(o.stderr, want) {
				t.Errorf("%s: %+v", backend, o)
			}
		}
	}
}

// The doctor shows the backend that is used without an engine, or why there is none.
func TestDoctorWithoutBoth(t *testing.T) {
	o := run(t, []string{"EXECUTOR_BACKEND=auto", systemPython}, "", "doctor")
	if o.code != 0 || !strings.Contains(o.stdout, "absent   Docker Engine does not answer") || !strings.Contains(o.stdout, "ok       sandboxes run on this machine without an engine") {
		t.Errorf("without an engine: %+v", o)
	}
	o = run(t, []string{"EXECUTOR_BACKEND=auto", "LOCAL_PYTHON=/nonexistent/python3"}, "", "doctor")
	if o.code != 1 || !strings.Contains(o.stdout, "missing  without an engine: LOCAL_PYTHON") {
		t.Errorf("without either: %+v", o)
	}
}
