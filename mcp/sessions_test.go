package mcp_test

import (
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// A session is begun, used by every tool, and ended.
func TestSessionTools(t *testing.T) {
	opts, known := options(nil), newSessions()
	opts.Sessions = known
	var called []string
	known.python = func(req execution.Request) (*execution.Result, error) {
		called = append(called, req.Code)
		return printed("ran " + req.Code + "\n"), nil
	}
	known.bash = func(cmd execution.Command) (*execution.Result, error) {
		called = append(called, cmd.Command)
		return printed("ran " + cmd.Command + "\n"), nil
	}
	known.read = func(req execution.ReadRequest) error {
		called = append(called, req.Path)
		_, err := req.Keep(t.Context(), req.Path, strings.NewReader("a,b\n"))
		return err
	}
	known.write = func(req execution.WriteRequest) error {
		called = append(called, req.Files[0].Path)
		return nil
	}
	c := connect(t, opts)
	for _, step := range []struct{ tool, arguments, want string }{
		{"execute_python", `{"code": "x = 1", "session": "new"}`, "ran x = 1\n[This is the session session1. Pass session=\"session1\" to go on with its variables and files, for 1 hour after each call.]\n"},
		{"execute_python", `{"code": "x", "session": "session1"}`, "ran x\n"},
		{"run_bash", `{"command": "ls", "session": "session1", "timeout_ms": 5}`, "ran ls\n"},
		{"write_file", `{"session": "session1", "path": "a/b.csv", "content": "a,b\n"}`, "Wrote a/b.csv, 4 bytes."},
		{"write_file", `{"session": "session1", "path": "c", "content_base64": "AAAA"}`, "Wrote c, 3 bytes."},
		{"read_file", `{"session": "session1", "path": "a/b.csv"}`, "a,b\n"},
		{"read_file", `{"session": "session1", "path": "/workspace/a/b.csv", "encoding": "base64"}`, "YSxiCg=="},
		{"write_file", `{"session": "session1", "path": "/workspace/d", "content": ""}`, "Wrote d, 0 bytes."},
		{"run_bash", `{"command": "pwd", "session": "new"}`, "ran pwd\n[This is the session session2. Pass session=\"session2\" to go on with its variables and files, for 1 hour after each call.]\n"},
		{"end_session", `{"session": "session1"}`, "The session has ended."},
	} {
		if r := c.tool(step.tool, step.arguments); r.IsError || r.Content[0].Text != step.want {
			t.Errorf("%s: error %v: %q", step.tool, r.IsError, r.Content[0].Text)
		}
	}
	if got, want := strings.Join(called, " "), "x = 1 x ls a/b.csv c a/b.csv a/b.csv d pwd"; got != want {
		t.Errorf("called: %q", got)
	}
	for _, test := range []struct{ tool, arguments, want string }{
		{"execute_python", `{"code": "x", "session": "session1"}`, gone},
		{"run_bash", `{"command": "x", "session": "session1"}`, gone},
		{"read_file", `{"path": "x", "session": "session1"}`, gone},
		{"write_file", `{"path": "x", "content": "", "session": "session1"}`, gone},
		{"end_session", `{"session": "session1"}`, "the session session1 has ended already, or there never was one of that name"},
	} {
		if r := c.tool(test.tool, test.arguments); !r.IsError || r.Content[0].Text != test.want {
			t.Errorf("%s: error %v: %q", test.tool, r.IsError, r.Content[0].Text)
		}
	}
}

const gone = `Session 'session1' not found: it has ended, or there never was one of that name. session="new" begins one.`

func TestSessionToolsInvalid(t *testing.T) {
	opts := options(nil)
	known := newSessions()
	known.alive["s"] = true
	known.read = func(req execution.ReadRequest) error {
		_, err := req.Keep(t.Context(), req.Path, strings.NewReader("\xff"))
		return err
	}
	opts.Sessions = known
	for name, test := range map[string]struct{ tool, arguments, want string }{
		"bash without a session": {"run_bash", `{"command": "ls"}`, `the argument session is required: one that an earlier call has named, or "new", as a string`},
		"bash without a command": {"run_bash", `{"session": "s"}`, "the argument command is required: what bash runs, as a string"},
		"bash in none":           {"run_bash", `{"session": "", "command": "ls"}`, `the argument session is required: one that an earlier call has named, or "new", as a string`},
		"reading a new one":      {"read_file", `{"session": "new", "path": "a"}`, `read_file cannot begin a session: call execute_python or run_bash with session="new" first`},
		"writing a new one":      {"write_file", `{"session": "new", "path": "a", "content": ""}`, `write_file cannot begin a session: call execute_python or run_bash with session="new" first`},
		"ending a new one":       {"end_session", `{"session": "new"}`, `end_session cannot begin a session: call execute_python or run_bash with session="new" first`},
		"the folder itself":      {"read_file", `{"session": "s", "path": "/workspace/"}`, `path must not be empty (it is "")`},
		"a path that climbs":     {"read_file", `{"session": "s", "path": "/workspace/../a"}`, `path must not contain ".." (it is "../a")`},
		"an unknown argument":    {"run_bash", `{"session": "s", "command": "", "cmd": ""}`, `unknown argument "cmd": the known ones are session, command, timeout_ms`},
		"an empty command":       {"run_bash", `{"session": "s", "command": ""}`, `command must not be empty (it is "")`},
		"a session not begun":    {"run_bash", `{"session": "new", "command": ""}`, `command must not be empty (it is "")`},
		"another encoding":       {"read_file", `{"session": "s", "path": "a", "encoding": "utf-16"}`, `encoding is "utf-16": must be text or base64`},
		"no text":                {"read_file", `{"session": "s", "path": "a"}`, "a is not text (1 bytes): read it with encoding base64, or with execute_python"},
		"a path that leaves":     {"read_file", `{"session": "s", "path": "../a"}`, `path must not contain ".." (it is "../a")`},
		"written elsewhere":      {"write_file", `{"session": "s", "path": "/etc/passwd", "content": ""}`, `path must be relative to the workspace, not absolute (it is "/etc/passwd")`},
		"no content":             {"write_file", `{"session": "s", "path": "a"}`, "write_file needs one of content and content_base64"},
		"two contents":           {"write_file", `{"session": "s", "path": "a", "content": "x", "content_base64": "eA=="}`, "write_file needs one of content and content_base64: it has content and content_base64"},
		"no base64":              {"write_file", `{"session": "s", "path": "a", "content_base64": "%"}`, "content_base64 must be standard base64: illegal base64 data at input byte 0"},
	} {
		t.Run(name, func(t *testing.T) {
			r := connect(t, opts).tool(test.tool, test.arguments)
			if !r.IsError || r.Content[0].Text != test.want {
				t.Errorf("error %v: %s", r.IsError, r.Content[0].Text)
			}
			if known.begun != len(known.alive)-1 {
				t.Errorf("%d sessions were begun", known.begun)
			}
		})
	}
}

// A session whose client does not learn its name is deleted.
func TestNewSessionOfAFailedCall(t *testing.T) {
	opts, known := options(nil), newSessions()
	known.python = func(execution.Request) (*execution.Result, error) {
		return nil, &execution.Error{Code: execution.Unavailable, Message: "the session does not answer; try again"}
	}
	opts.Sessions = known
	if text, isError := connect(t, opts).call(`{"code": "", "session": "new"}`); !isError {
		t.Error(text)
	}
	if known.begun != 1 || len(known.alive) != 0 {
		t.Errorf("%d begun, %v alive", known.begun, known.alive)
	}
}

// So is one whose client cancels the call before its answer.
func TestNewSessionOfACancelledCall(t *testing.T) { synctest.Test(t, testNewSessionOfACancelledCall) }

func testNewSessionOfACancelledCall(t *testing.T) {
	t.Helper()
	opts, known := options(nil), newSessions()
	var c *client
	known.python = func(execution.Request) (*execution.Result, error) {
		c.write(`{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}`)
		c.write(`{"jsonrpc": "2.0", "method": "notifications/initialized"}`) // taken when that has been
		c.write(`{"jsonrpc": "2.0", "method": "notifications/initialized"}`)
		return printed("done"), nil
	}
	opts.Sessions = known
	c = connect(t, opts)
	c.send("tools/call", `{"name": "execute_python", "arguments": {"code": "", "session": "new"}}`)
	synctest.Wait()
	if known.begun != 1 || len(known.alive) != 0 {
		t.Errorf("%d begun, %v alive", known.begun, known.alive)
	}
}

// A large file is cut or refused, saying how to see it.
func TestReadLargeFile(t *testing.T) {
	opts, known := options(nil), newSessions()
	known.alive["s"] = true
	known.read = func(req execution.ReadRequest) error {
		size := map[string]int64{"some": 100_000, "much": 30 << 20}[req.Path]
		_, err := req.Keep(t.Context(), req.Path, io.LimitReader(endless{}, size))
		return err
	}
	opts.Sessions = known
	c := connect(t, opts)
	r := c.tool("read_file", `{"session": "s", "path": "some"}`)
	text := r.Content[0].Text
	if r.IsError || len(text) > 30_300 || !strings.Contains(text, "of 100,000 bytes are left out here") || !strings.Contains(text, "sed -n") {
		t.Errorf("%d bytes: %.100s", len(text), text)
	}
	for _, arguments := range []string{`{"session": "s", "path": "much"}`, `{"session": "s", "path": "much", "encoding": "base64"}`} {
		r = c.tool("read_file", arguments)
		if !r.IsError || !strings.HasPrefix(r.Content[0].Text, "much has 31,457,280 bytes, too many for one answer: read parts of it with ") {
			t.Errorf("%.200s", r.Content[0].Text)
		}
	}
}

// What a file shows is what is in it, and a picture says how it is shown.
func TestReadFileShows(t *testing.T) {
	opts, known := options(nil), newSessions()
	known.alive["s"] = true
	files := map[string]string{
		"empty": "", "cr": "a\rb\rc", "crlf": "a\r\nb\r\n", "hidden": "\x1b]0;title\x07", "wide.png": string(drawing(t, 9000, 10, false)),
	}
	known.read = func(req execution.ReadRequest) error {
		data, ok := files[req.Path]
		if !ok {
			return &execution.Error{Code: execution.NotFound, Message: "there is no file " + req.Path}
		}
		_, err := req.Keep(t.Context(), req.Path, strings.NewReader(data))
		return err
	}
	opts.Sessions = known
	c := connect(t, opts)
	for path, want := range map[string]string{
		"empty": "[The file is empty.]", "cr": "a\nb\nc", "crlf": "a\nb\n",
		"hidden":            "[None of the file's 10 bytes can be shown as text: read it with encoding base64.]",
		"wide.png":          "[wide.png, " + strconv.Itoa(len(files["wide.png"])) + " bytes, shown reduced in size]",
		`no\u001b[31mwhere`: "there is no file nowhere",
	} {
		if got := c.tool("read_file", `{"session": "s", "path": "`+path+`"}`).Content[0].Text; got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
}

// endless returns lines without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "a line\n"[i%7]
	}
	return len(p), nil
}

// A result says when its session ends if calls cannot put that off, and only then.
func TestSessionNearItsEnd(t *testing.T) {
	for name, test := range map[string]struct {
		age, idle time.Duration // of a day at most
		want      string
	}{
		"young":              {time.Hour, time.Hour, "1\n"},
		"old":                {22 * time.Hour, time.Minute, "1\n[The session ends in 119 minutes at the latest: it nears its greatest age. Save what you need.]\n"},
		"not renewed whole":  {20 * time.Hour, 5 * time.Hour, "1\n[The session ends in 3 hours at the latest: it nears its greatest age. Save what you need.]\n"},
		"over":               {24 * time.Hour, time.Hour, "1\n[The session ends now: it has reached its greatest age.]\n"},
		"not renewed at all": {24 * time.Hour, 0, "1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			opts, known := options(nil), newSessions()
			known.alive["s"] = true
			known.python = func(execution.Request) (*execution.Result, error) {
				result, created := printed("1\n"), time.Now().Add(-test.age)
				result.Session = execution.SessionInfo{ID: "s", Created: created, Idle: test.idle, Latest: created.Add(24 * time.Hour)}
				return result, nil
			}
			opts.Sessions = known
			if got := connect(t, opts).tool("execute_python", `{"code": "1", "session": "s"}`).Content[0].Text; got != test.want {
				t.Errorf("%q", got)
			}
		})
	}
}

// A list of files has names and sizes, and says what it lacks.
func TestListFiles(t *testing.T) {
	opts, known := options(nil), newSessions()
	known.alive["s"] = true
	var asked string
	var listing execution.Listing
	known.list = func(req execution.ListRequest) (execution.Listing, error) {
		asked = req.Path
		if req.Path == "none" {
			return listing, &execution.Error{Code: execution.NotFound, Message: "File 'none' not found in the session"}
		}
		return listing, nil
	}
	opts.Sessions = known
	c := connect(t, opts)
	for arguments, want := range map[string]string{
		`{"session": "s"}`: "", `{"session": "s", "path": ""}`: "", `{"session": "s", "path": "."}`: "", `{"session": "s", "path": "./"}`: "",
		`{"session": "s", "path": "/workspace"}`: "", `{"session": "s", "path": "/workspace/"}`: "", `{"session": "s", "path": "/workspace/a/"}`: "a",
		`{"session": "s", "path": "a/b"}`: "a/b", `{"session": "s", "path": "./a"}`: "a",
	} {
		if got := c.tool("list_files", arguments).Content[0].Text; got != "[There are no files.]\n" || asked != want {
			t.Errorf("%s: %q of %q", arguments, got, asked)
		}
	}
	listing.Entries = []execution.Entry{
		{Path: "data", Kind: execution.KindFolder},
		{Path: "data/a b.csv", Kind: execution.KindFile, Size: 12345},
		{Path: "link", Kind: execution.KindLink, Size: 3},
		{Path: "pipe", Kind: execution.KindOther},
	}
	listing.Skipped = []execution.SkippedFile{{Path: "bad\\x0a", Reason: "its name has a control character"}, {Reason: "there are more"}}
	want := "data/\ndata/a b.csv  12,345 bytes\nlink  (link)\npipe  (not a regular file)\n" +
		"[bad\\x0a is not listed: its name has a control character.]\n[There are more: list one folder, or search with find in run_bash.]\n"
	if r := c.tool("list_files", `{"session": "s"}`); r.IsError || r.Content[0].Text != want {
		t.Errorf("%q", r.Content[0].Text)
	}
	listing = execution.Listing{}
	for range 10_000 {
		listing.Entries = append(listing.Entries, execution.Entry{Path: "a file with a name", Kind: execution.KindFile})
	}
	if text := c.tool("list_files", `{"session": "s"}`).Content[0].Text; len(text) > 30_300 || !strings.Contains(text, "list one folder") {
		t.Errorf("%d bytes: %.100s", len(text), text)
	}
	for arguments, want := range map[string]string{
		`{"session": "s", "path": "none"}`: "File 'none' not found in the session",
		`{"session": "new"}`:               `list_files cannot begin a session: call execute_python or run_bash with session="new" first`,
		`{"session": "s", "path": "/etc"}`: `path must be relative to the workspace, not absolute (it is "/etc")`,
	} {
		if r := c.tool("list_files", arguments); !r.IsError || r.Content[0].Text != want {
			t.Errorf("%s: %s", arguments, r.Content[0].Text)
		}
	}
}
