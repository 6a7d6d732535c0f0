package mcp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// The list of tools is a snapshot, because models depend on it.
func TestToolsList(t *testing.T) {
	tools := connect(t, options(nil)).request("tools/list", `{}`)
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, tools.Result, "", "  "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	const path = "testdata/tools.json"
	if *update {
		if err := os.WriteFile(path, pretty.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), pretty.String()); diff != "" {
		t.Errorf("the tools have changed; if that is meant, run go test ./mcp -update (-want +got):\n%s", diff)
	}
}

// The description is made from the settings, and short enough for every client.
func TestToolTellsTheSettings(t *testing.T) {
	opts := options(nil)
	opts.Settings.Network = "bridge"
	opts.Settings.MemoryBytes = 777 << 20
	opts.Limits.MaxTimeout = 12345 * time.Millisecond
	opts.Limits.CPUTime = 66 * time.Second
	opts.Limits.ResultFiles, opts.Limits.ResultBytes = 55, 44<<20
	var list struct {
		Tools []struct {
			Description string
			Annotations struct{ OpenWorldHint, DestructiveHint, ReadOnlyHint *bool }
		}
	}
	if err := json.Unmarshal(connect(t, opts).request("tools/list", `{}`).Result, &list); err != nil || len(list.Tools) != 6 {
		t.Fatalf("%+v, %v", list, err)
	}
	opts.Limits.CPUTime = 0 // it follows timeout_ms
	if text := string(connect(t, opts).request("tools/list", `{}`).Result); strings.Contains(text, " s of CPU time") {
		t.Errorf("a limit is described that is not set: %s", text)
	}
	for _, want := range []string{"There is a network.", "at most 12345 (", "66 s", "777 MB", "for 1 hour", "at most 55 of 44 MB in all"} {
		if !strings.Contains(list.Tools[1].Description, want) {
			t.Errorf("%q is not in the description: %s", want, list.Tools[1].Description)
		}
	}
	for _, tool := range list.Tools {
		if len(tool.Description) > 1000 {
			t.Errorf("the description has %d bytes", len(tool.Description))
		}
		if a := tool.Annotations; a.OpenWorldHint == nil || !*a.OpenWorldHint || a.DestructiveHint == nil || a.ReadOnlyHint == nil {
			t.Errorf("the annotations are %+v", a)
		}
	}
}

// What a call's arguments become for the executor.
func TestCallRequest(t *testing.T) {
	for name, test := range map[string]struct {
		arguments string
		want      execution.Request
	}{
		"code alone": {`{"code": "print(1)"}`, execution.Request{Code: "print(1)", Timeout: 30 * time.Second, Interactive: true}},
		"no session": {`{"code": "", "session": ""}`, execution.Request{Timeout: 30 * time.Second, Interactive: true}},
		"a whole path": {`{"code": "", "files": [{"path": "/workspace/d/a", "content": ""}]}`, execution.Request{
			Timeout: 30 * time.Second, Interactive: true, Files: []execution.Input{execution.Inline("d/a", []byte{})},
		}},
		"empty code": {`{"code": ""}`, execution.Request{Timeout: 30 * time.Second, Interactive: true}},
		"everything": {
			`{"code": "c", "timeout_ms": 1500, "stdin": "s", "args": ["", "-v"],
			  "files": [{"path": "a.txt", "content": "é"}, {"path": "b.bin", "content_base64": "AP8="}, {"path": "empty", "content": ""}]}`,
			execution.Request{
				Code: "c", Stdin: "s", Args: []string{"", "-v"}, Timeout: 1500 * time.Millisecond, Interactive: true,
				Files: []execution.Input{
					execution.Inline("a.txt", []byte("é")), execution.Inline("b.bin", []byte{0, 255}), execution.Inline("empty", []byte{}),
				},
			},
		},
		"an integral time": {`{"code": "", "timeout_ms": 2e3}`, execution.Request{Timeout: 2 * time.Second, Interactive: true}},
		"a huge time":      {`{"code": "", "timeout_ms": 9007199254740992}`, execution.Request{Timeout: 9223372036854 * time.Millisecond, Interactive: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan execution.Request, 1)
			text, isError := connect(t, options(func(_ context.Context, req execution.Request) (*execution.Result, error) {
				got <- req
				return exited(0), nil
			})).call(test.arguments)
			if isError {
				t.Fatal(text)
			}
			if diff := cmp.Diff(test.want, <-got, cmpopts.IgnoreFields(execution.Request{}, "Keep")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// An invalid call returns an error that names the fault, and runs nothing.
func TestCallInvalid(t *testing.T) {
	for name, test := range map[string]struct{ arguments, want string }{
		"nothing":          {`{}`, "the argument code is required: Python source text, as a string"},
		"null":             {`null`, "the argument code is required: Python source text, as a string"},
		"no object":        {`"print(1)"`, `arguments is "print(1)": must be an object`},
		"a list":           {`["print(1)"]`, `arguments is ["print(1)"]: must be an object`},
		"code null":        {`{"code": null}`, "the argument code is required: Python source text, as a string"},
		"code number":      {`{"code": 5}`, "code is 5: must be a string"},
		"unknown argument": {`{"code": "", "timeout": 5}`, `unknown argument "timeout": the known ones are code, session, files, timeout_ms, stdin, args`},
		"first unknown":    {`{"zzz": 1, "code": "", "aaa": 5}`, `unknown argument "aaa": the known ones are code, session, files, timeout_ms, stdin, args`},
		"another case":     {`{"code": "", "Stdin": "x"}`, `unknown argument "Stdin": it differs from stdin in case`},
		"timeout string":   {`{"code": "", "timeout_ms": "soon"}`, `timeout_ms is "soon": must be an integer`},
		"timeout fraction": {`{"code": "", "timeout_ms": 5.5}`, "timeout_ms is 5.5: must be an integer"},
		"timeout bool":     {`{"code": "", "timeout_ms": true}`, "timeout_ms is true: must be an integer"},
		"timeout zero":     {`{"code": "", "timeout_ms": 0}`, "timeout_ms is 0: must be at least 1"},
		"timeout below":    {`{"code": "", "timeout_ms": -1}`, "timeout_ms is -1: must be at least 1"},
		"stdin number":     {`{"code": "", "stdin": 5}`, "stdin is 5: must be a string"},
		"files string":     {`{"code": "", "files": "a"}`, `files is "a": must be an array`},
		"files object":     {`{"code": "", "files": {"path": "a"}}`, `files is {"path": "a"}: must be an array`},
		"file string":      {`{"code": "", "files": ["a"]}`, `files[0] is "a": must be an object`},
		"unknown field":    {`{"code": "", "files": [{"path": "a", "content": ""}, {"path": "b", "text": ""}]}`, `unknown field of files[1] "text": the known ones are path, content, content_base64, file_id`},
		"no content":       {`{"code": "", "files": [{"path": "a"}]}`, "files[0] needs one of content, content_base64 and file_id"},
		"both contents":    {`{"code": "", "files": [{"path": "a", "content": "x", "content_base64": "eA=="}]}`, "files[0] needs one of content, content_base64 and file_id: it has content and content_base64"},
		"no base64":        {`{"code": "", "files": [{"path": "a", "content_base64": "%"}]}`, "files[0].content_base64 must be standard base64: illegal base64 data at input byte 0"},
		"unknown file":     {`{"code": "", "files": [{"path": "a", "file_id": "nope"}]}`, "File with ID 'nope' not found for path 'a'."},
		"session number":   {`{"code": "", "session": 1}`, "session is 1: must be a string"},
		"no session":       {`{"code": "", "session": "x"}`, `Session 'x' not found: it has ended, or there never was one of that name. session="new" begins one.`},
		"file null":        {`{"code": "", "files": [null]}`, "files[0] is null: must be an object"},
		"path above":       {`{"code": "", "files": [{"path": "/workspace/a", "file_id": "nope"}]}`, "File with ID 'nope' not found for path 'a'."},
		"content number":   {`{"code": "", "files": [{"path": "a", "content": 5}]}`, "files[0].content is 5: must be a string"},
	} {
		t.Run(name, func(t *testing.T) {
			text, isError := connect(t, options(func(context.Context, execution.Request) (*execution.Result, error) {
				t.Error("it was run")
				return exited(0), nil
			})).call(test.arguments)
			if !isError || text != test.want {
				t.Errorf("error %v: %s", isError, text)
			}
		})
	}
}

// What a model reads of a result.
func TestCallResult(t *testing.T) {
	two := 2
	for name, test := range map[string]struct {
		result *execution.Result
		want   string
		failed bool
	}{
		"output": {
			&execution.Result{Stdout: "42\n", ExitCode: new(int), End: execution.End{Reason: execution.Exited}}, "42\n", false,
		},
		"no output": {
			exited(0), "[The program ended without output: print what you want to see.]\n", false,
		},
		"both streams, without newlines": {
			&execution.Result{Stdout: "out", Stderr: "err", ExitCode: new(int), End: execution.End{Reason: execution.Exited}},
			"out\n[stderr]\nerr", false,
		},
		"stderr alone": {
			&execution.Result{Stderr: "warning\n", ExitCode: new(int), End: execution.End{Reason: execution.Exited}},
			"[stderr]\nwarning\n", false,
		},
		"failure": {
			&execution.Result{Stderr: "Traceback\n", ExitCode: &two, End: execution.End{Reason: execution.Exited}},
			"[stderr]\nTraceback\n[Exit code 2.]\n", true,
		},
		"signal": {
			&execution.Result{Stdout: "x", ExitCode: &two, End: execution.End{Reason: execution.Signal, Signal: "SIGSEGV"}},
			"x\n[Ended by SIGSEGV.]\n", true,
		},
		"timeout": {
			&execution.Result{End: execution.End{Reason: execution.Timeout, Message: "stopped after 2000 ms"}},
			"[Stopped after 2000 ms. Raise timeout_ms (at most 60000), or do less.]\n", true,
		},
		"memory": {
			&execution.Result{ExitCode: &two, End: execution.End{Reason: execution.MemoryLimit, Message: "too much"}},
			"[Too much. The sandbox has 256 MB, files included: work on less at a time, or use smaller types.]\n", true,
		},
		"lost": {
			&execution.Result{ExitCode: &two, End: execution.End{Reason: execution.SandboxLost}}, "[Sandbox lost. Try again, with less memory.]\n", true,
		},
		"success with a remark": {
			&execution.Result{Stdout: "x\n", ExitCode: new(int), End: execution.End{Reason: execution.Exited, Message: "files are missing"}},
			"x\n[Files are missing.]\n", false,
		},
		"cpu": {
			&execution.Result{ExitCode: &two, End: execution.End{Reason: execution.CPULimit, Message: "stopped after 5 s of CPU time (limit 5 s)"}},
			"[Stopped after 5 s of CPU time (limit 5 s). Use a faster method, or split the work over several calls.]\n", true,
		},
		"processes": {
			&execution.Result{ExitCode: &two, End: execution.End{Reason: execution.ProcessLimit}}, "[Process limit. The limit is 64: start fewer.]\n", true,
		},
		"disk": {
			&execution.Result{ExitCode: &two, End: execution.End{Reason: execution.WorkspaceLimit, Message: "it failed with no room left in /tmp"}},
			"[It failed with no room left in /tmp. The working directory has 64 MB and /tmp 32 MB: write less, or delete what is not needed.]\n", true,
		},
		"HTML": {
			&execution.Result{Stdout: "<H>\n", ExitCode: new(int), End: execution.End{Reason: execution.Exited}, Displayed: [][]execution.Representation{
				{{Type: "text/plain", Data: []byte("<H>")}, {Type: "text/html", Data: []byte("<b>x</b>")}},
				{{Type: "text/plain", Data: []byte("   a\n0  1")}, {Type: "text/html", Data: []byte("<table>")}},
				{{Type: "text/html", Data: []byte("<img>")}, {Type: "image/png", Data: []byte("png")}},
				{{Type: "text/html", Data: []byte(strings.Repeat("long ", 1000))}},
			}},
			"<H>\n[HTML]\n<b>x</b>\n[HTML]\n" + strings.Repeat("long ", 400) + "...\n", false,
		},
		"what terminals heed": {
			&execution.Result{
				Stdout: "\x1b[31mred\x1b[0m \x1b]8;;http://x\x1b\\link\x07\n 10%\r 20%\rdone\r\n\u202eabc\u2066\x00\ttab\n", ExitCode: new(int),
				End: execution.End{Reason: execution.Exited},
			},
			"red link\ndone\nabc\ttab\n", false,
		},
		"files": {
			&execution.Result{
				Stdout: "x", ExitCode: new(int), End: execution.End{Reason: execution.Exited},
				Files:   []execution.File{{Path: "a.csv", Size: 3, ID: "1"}, {Path: "d/b", ID: "2"}},
				Skipped: []execution.SkippedFile{{Path: "big", Reason: "it is big"}},
			},
			"x\n[file: a.csv, 3 bytes, file_id 1]\n[file: d/b, 0 bytes, file_id 2]\n[file not returned: big: it is big]\n", false,
		},
		"files that are not returned": {
			&execution.Result{
				Stdout: "x", ExitCode: new(int), End: execution.End{Reason: execution.Exited},
				Skipped: []execution.SkippedFile{
					{Path: "a", Reason: "many"},
					{Path: "l", Reason: "a link"},
					{Path: "b", Reason: "many"},
					{Path: "c", Reason: "many"},
					{Path: "d", Reason: "many"},
					{Path: "e", Reason: "many"},
					{Path: "m", Reason: "a link"},
					{Reason: "and more; the list was cut here"},
				},
			},
			"x\n[5 files not returned: a, b, c and 2 more: many]\n[2 files not returned: l, m: a link]\n[files not returned: and more; the list was cut here]\n", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			text, isError := connect(t, options(gives(test.result, nil))).call(`{"code": ""}`)
			if text != test.want || isError != test.failed {
				t.Errorf("error %v: %q", isError, text)
			}
		})
	}
}

// A result states that output beyond the run's limit was dropped, but not if the program printed
// the mark itself.
func TestOutputThatWasNotKept(t *testing.T) {
	r := exited(0)
	r.Stdout = strings.Repeat("a line\n", 142_857) + "\n...[truncated]"
	r.Stderr = "short\n...[truncated]"
	text, _ := connect(t, options(gives(r, nil))).call(`{"code": ""}`)
	for _, want := range []string{
		" of 999,999 bytes are left out here ...]\n", "a line\n[stdout beyond 1,000,000 bytes was dropped: print less, or write it to a file.]\n",
		"[stderr]\nshort\n...[truncated]\n[file: stdout.txt, 999,999 bytes, ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the text: %s", want, text[len(text)-300:])
		}
	}
}

// Failures of ours are results too, with the next step and without our secrets.
func TestCallErrors(t *testing.T) {
	secret := errors.New("password is hunter2")
	domain := func(code execution.Code) error {
		return &execution.Error{Code: code, Message: "a sentence", Err: secret}
	}
	for name, test := range map[string]struct {
		err  error
		want string
		log  bool
	}{
		"busy":        {domain(execution.Busy), "a sentence. Try again in a moment.", true},
		"unavailable": {domain(execution.Unavailable), "a sentence. Nothing was run. Ask the user to run `vivarium doctor`, which reports what is missing.", true},
		"too large":   {domain(execution.TooLarge), "a sentence", true},
		"not found":   {domain(execution.NotFound), "a sentence", true},
		"cancelled":   {domain(execution.Cancelled), "a sentence", false},
		"internal":    {domain(execution.Internal), "The server failed, not the program. Its log has the reason.", true},
		"foreign":     {secret, "The server failed, not the program. Its log has the reason.", true},
		"invalid": {
			&execution.Error{Code: execution.Invalid, Message: "not valid", Fields: []execution.FieldError{
				{Field: execution.FieldFiles, Message: "must not be empty", Value: ""},
			}}, `files[0].path must not be empty (it is "")`, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := new(logged)
			opts := options(gives(nil, test.err))
			opts.Log = slog.New(slog.NewTextHandler(log, nil))
			text, isError := connect(t, opts).call(`{"code": ""}`)
			if !isError || text != test.want {
				t.Errorf("error %v: %s", isError, text)
			}
			if strings.Contains(log.String(), "hunter2") != test.log {
				t.Errorf("the log is %s", log)
			}
		})
	}
}
