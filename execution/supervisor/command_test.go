package supervisor_test

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/supervisor"
)

// unpacked returns the texts in a command line: the names of the modules to load later, and a name, a file name and a
// source for each module.
func unpacked(t *testing.T, line []string) []string {
	t.Helper()
	packed, err := base64.StdEncoding.DecodeString(strings.Join(line[5:slices.Index(line, "--")], ""))
	if err != nil {
		t.Fatal(err)
	}
	r, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\x00")
}

// The arguments are python3 -I -c, the loader, the last module's name, the modules, "--", and the supervisor's own.
func TestCommand(t *testing.T) {
	makeCommand, err := supervisor.NewCommand()
	if err != nil {
		t.Fatal(err)
	}
	settings := execution.Settings{Isolation: execution.IsolationRun, Preload: "numpy"}
	command := makeCommand.Line(execution.Spec{Settings: settings})
	end := slices.Index(command, "--")
	if !slices.Equal(command[:3], []string{"python3", "-I", "-c"}) || end < 0 || command[4] != "serve_many" {
		t.Fatalf("the command is %.60q", command)
	}
	own := command[end+1:]
	want := []string{supervisor.Workspace, strconv.Itoa(int(supervisor.Silence.Seconds())), "numpy", "0"}
	if len(own) != 10 || !slices.Equal(own[:4], want) {
		t.Fatalf("the arguments are %.60q; want %q and two filters", own, want)
	}
	const instruction = 16 // digits
	if own[4] == "" || len(own[5]) < 20*instruction || len(own[5])%instruction != 0 || len(own[6])%instruction != 0 {
		t.Errorf("the filter is %q and %q for %q", own[5], own[6], own[4])
	}
	if len(own[6]) > 60*instruction {
		t.Errorf("the part that each program installs has %d instructions", len(own[6])/instruction)
	}
	settings.Isolation = execution.IsolationSession
	session := makeCommand.Line(execution.Spec{Settings: settings, Session: execution.SessionInfo{Expires: time.Unix(1700000000, 5e6)}})
	if texts := unpacked(t, session); session[len(session)-7] != "1700000000005" || !slices.Contains(texts, "notebook") || slices.Contains(texts, "zygote") {
		t.Errorf("a session's arguments are %.60q, its texts %.20q", session, texts)
	}
	if one, other := makeCommand.CompileDigest(execution.IsolationSession), makeCommand.CompileDigest(execution.IsolationRun); one == other || one == "" {
		t.Errorf("two kinds of sandboxes have the digests %q and %q", one, other)
	}
	compiled := makeCommand.CompiledLine(execution.Spec{Settings: settings})
	if !slices.Equal(compiled[:3], command[:3]) || compiled[4] != supervisor.Workspace {
		t.Errorf("from a file the command is %.60q", compiled)
	}
	for i, argument := range slices.Concat(command, session, makeCommand.CompileLine(execution.IsolationSession)) {
		if len(argument) >= 128<<10 { // MAX_ARG_STRLEN
			t.Errorf("argument %d is longer than Linux allows: %d bytes", i, len(argument))
		}
	}
}

// The environment has no variable of the server's own.
func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET_TOKEN", "hunter2")
	seen := make(map[string]bool)
	for _, variable := range supervisor.Environment() {
		name, value, found := strings.Cut(variable, "=")
		if !found || value == "" || seen[name] {
			t.Errorf("%q is malformed, empty or a duplicate", variable)
		}
		seen[name] = true
	}
	if seen["SECRET_TOKEN"] || !seen["PATH"] || !seen["HOME"] {
		t.Errorf("the environment is %v", supervisor.Environment())
	}
}
