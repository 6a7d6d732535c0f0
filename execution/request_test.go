package execution_test

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

var limits = execution.Limits{
	MaxTimeout: 10 * time.Second, CPUTime: 5 * time.Second, OutputBytes: 1000, WorkspaceBytes: 1 << 20,
	ResultFiles: 10, ResultFileBytes: 1 << 20, ResultBytes: 1 << 20,
}

func file(path string) execution.Input { return execution.Input{Path: path} }

// asError returns a domain error, which must have a code.
func asError(t *testing.T, err error, code execution.Code) *execution.Error {
	t.Helper()
	var domain *execution.Error
	if !errors.As(err, &domain) || domain.Code != code {
		t.Fatalf("the error is %v, not one of code %s", err, code)
	}
	return domain
}

// wantCode checks the code of a domain error.
func wantCode(t *testing.T, err error, code execution.Code) {
	t.Helper()
	_ = asError(t, err, code)
}

func TestPathFault(t *testing.T) {
	for path, want := range map[string]string{
		"a":                             "",
		"a.txt":                         "",
		"d/e/f.bin":                     "",
		"...":                           "",
		"..a/b..":                       "",
		".hidden":                       "",
		"a b\tc\nd":                     "",
		`back\slash`:                    "",
		"C:/windows":                    "",
		"ü 😀.csv":                       "",
		"__main__.py":                   "", // reserved, but a path
		strings.Repeat("a", 255):        "",
		strings.Repeat("a/", 31) + "a":  "",
		strings.Repeat("ab/", 31) + "a": "",
		strings.Repeat(strings.Repeat("a", 255)+"/", 3) + strings.Repeat("a", 256): "must have parts of at most 255 bytes",
		"":                              "must not be empty",
		"a\x00b":                        "must not contain NUL",
		"\x00":                          "must not contain NUL",
		"\xff":                          "must be valid UTF-8",
		"a/\xed\xa0\x80":                "must be valid UTF-8",
		"/":                             "must be relative to the workspace, not absolute",
		"/etc/passwd":                   "must be relative to the workspace, not absolute",
		"//a":                           "must be relative to the workspace, not absolute",
		"..":                            `must not contain ".."`,
		"../a":                          `must not contain ".."`,
		"a/..":                          `must not contain ".."`,
		"a/../b":                        `must not contain ".."`,
		".":                             `must not contain empty or "." parts`,
		"./a":                           `must not contain empty or "." parts`,
		"a/./b":                         `must not contain empty or "." parts`,
		"a//b":                          `must not contain empty or "." parts`,
		"a/":                            `must not contain empty or "." parts`,
		strings.Repeat("a", 256):        "must have parts of at most 255 bytes",
		"d/" + strings.Repeat("é", 128): "must have parts of at most 255 bytes",
		strings.Repeat("a/", 32) + "a":  "must have at most 32 parts",
		strings.Repeat("aaaa/", 205):    "must have at most 1024 bytes",
	} {
		if got := execution.PathFault(path); got != want {
			t.Errorf("%.60q: %q, not %q", path, got, want)
		}
	}
}

// FuzzPathFault checks that what is let through can only name something below
// a folder, by the rules of the standard library.
func FuzzPathFault(f *testing.F) {
	for _, path := range []string{"a", "a/b", "../a", "/a", "a/../b", "a//b", "./a", "a\x00", "\xff", "", ".", "a/", `..\a`} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if execution.PathFault(path) != "" {
			return
		}
		if !filepath.IsLocal(path) || filepath.Clean(path) != path || !utf8.ValidString(path) || strings.Contains(path, "\x00") {
			t.Errorf("%q is let through", path)
		}
	})
}

func TestValidateFiles(t *testing.T) {
	type fault struct {
		Index   int
		Message string
	}
	for name, test := range map[string]struct {
		files []execution.Input
		want  []fault
	}{
		"none":                  {nil, nil},
		"some":                  {[]execution.Input{file("a"), file("d/a"), file("d/b"), file("d/e/a")}, nil},
		"folders as prefixes":   {[]execution.Input{file("d"), file("da/b"), file("d.txt")}, nil},
		"a bad path":            {[]execution.Input{file("a"), file("../b")}, []fault{{1, `must not contain ".."`}}},
		"all bad paths":         {[]execution.Input{file(""), file("a"), file("/b")}, []fault{{0, "must not be empty"}, {2, "must be relative to the workspace, not absolute"}}},
		"a duplicate":           {[]execution.Input{file("a"), file("b"), file("a")}, []fault{{2, "is given twice"}}},
		"the program's name":    {[]execution.Input{file("__main__.py")}, []fault{{0, "is reserved for the program itself"}}},
		"its name as a folder":  {[]execution.Input{file("__main__.py/a")}, []fault{{0, `needs the folder "__main__.py", which is a file`}}},
		"its name deeper":       {[]execution.Input{file("d/__main__.py")}, nil},
		"a file, then a folder": {[]execution.Input{file("d"), file("d/a")}, []fault{{1, `needs the folder "d", which is a file`}}},
		"a folder, then a file": {[]execution.Input{file("d/a"), file("d")}, []fault{{1, "is a folder of another file"}}},
		"the same, deeper":      {[]execution.Input{file("d/e/f/a"), file("d/e")}, []fault{{1, "is a folder of another file"}}},
		"a file above":          {[]execution.Input{file("d/e"), file("d/e/f/a")}, []fault{{1, `needs the folder "d/e", which is a file`}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := execution.Request{Files: test.files}.Validate(t.Context(), limits)
			if len(test.want) == 0 {
				if err != nil {
					t.Errorf("the error is %v", err)
				}
				return
			}
			var got []fault
			for _, field := range asError(t, err, execution.Invalid).Fields {
				if field.Field != execution.FieldFiles || field.Value != test.files[field.Index].Path {
					t.Errorf("wrong fault: %+v", field)
				}
				got = append(got, fault{field.Index, field.Message})
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The fault of a path that could lead out of the workspace has a kind of its own.
func TestValidateFilesOutside(t *testing.T) {
	for path, want := range map[string]execution.Fault{
		"": execution.FaultValue, "./a": execution.FaultValue, "a\x00": execution.FaultValue, "...//a": execution.FaultValue,
		"/": execution.FaultAbsolute, "/..": execution.FaultAbsolute, "//a\x00": execution.FaultAbsolute,
		"..": execution.FaultParent, "a/..": execution.FaultParent, "a\x00/../b": execution.FaultParent, ".//..": execution.FaultParent,
	} {
		_, err := execution.Request{Files: []execution.Input{file(path)}}.Validate(t.Context(), limits)
		if fields := asError(t, err, execution.Invalid).Fields; len(fields) != 1 || fields[0].Fault != want {
			t.Errorf("%q: %+v", path, fields)
		}
	}
}

func TestValidateTimeout(t *testing.T) {
	short := limits
	short.MaxTimeout = time.Second
	for name, test := range map[string]struct {
		limits  execution.Limits
		timeout time.Duration
		want    time.Duration // 0: refused
		message string
	}{
		"none":                    {limits, 0, 2 * time.Second, ""},
		"none, with a short most": {short, 0, time.Second, ""},
		"the shortest":            {limits, time.Millisecond, time.Millisecond, ""},
		"the longest":             {limits, 10 * time.Second, 10 * time.Second, ""},
		"more":                    {limits, 10*time.Second + time.Millisecond, 0, "timeout must be at most 10s (it is 10.001s)"},
		"much more":               {limits, 1<<63 - 1, 0, "timeout must be at most 10s (it is 2562047h47m16.854775807s)"},
		"below zero":              {limits, -time.Millisecond, 0, "timeout must be positive (it is -1ms)"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := execution.Request{Timeout: test.timeout}.Validate(t.Context(), test.limits)
			if test.want == 0 {
				if got := asError(t, err, execution.Invalid).Explain(); got != test.message {
					t.Errorf("the message is %q", got)
				}
			} else if err != nil || req.Timeout != test.want {
				t.Errorf("the timeout is %v, %v", req.Timeout, err)
			}
		})
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	_, err := execution.Request{Timeout: -1, Files: []execution.Input{file(""), file("..")}}.Validate(t.Context(), limits)
	if fields := asError(t, err, execution.Invalid).Fields; len(fields) != 3 {
		t.Errorf("the faults are %v", fields)
	}
}

// A file takes whole pages of the workspace.
func TestValidateSize(t *testing.T) {
	const page = 4096
	for name, test := range map[string]struct {
		sizes []int64
		fits  bool
	}{
		"one that fills it":            {[]int64{1 << 20}, true},
		"one byte more":                {[]int64{1<<20 + 1}, false},
		"many that fill it":            {slices.Repeat([]int64{page}, 256), true},
		"one byte each":                {slices.Repeat([]int64{1}, 256), true},
		"one byte each, one too many":  {slices.Repeat([]int64{1}, 257), false},
		"empty ones take none":         {append(slices.Repeat([]int64{0}, 500), 1<<20), true},
		"more than there can be":       {[]int64{math.MaxInt64, math.MaxInt64, math.MaxInt64}, false},
		"a page and one, then no room": {[]int64{1<<20 - page, page + 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var req execution.Request
			for i, size := range test.sizes {
				req.Files = append(req.Files, execution.Input{Path: "f" + strings.Repeat("x", i%200) + string(rune('a'+i/200)), Size: size})
			}
			got, err := req.Validate(t.Context(), limits)
			if test.fits {
				if err != nil || len(got.Files) != len(test.sizes) {
					t.Errorf("%d files, %v", len(got.Files), err)
				}
				return
			}
			if message := asError(t, err, execution.TooLarge).Message; !strings.Contains(message, "1 MB") {
				t.Errorf("the message is %q", message)
			}
		})
	}
}

func TestValidateKeepsTheRest(t *testing.T) {
	req := execution.Request{Code: "c", Stdin: "s", Timeout: time.Second, Interactive: true, Files: []execution.Input{execution.Inline("a", []byte("x"))}, Env: map[string]string{"A": "1"}, Args: []string{"x"}}
	got, err := req.Validate(t.Context(), limits)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(req, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestValidateCommand(t *testing.T) {
	for name, test := range map[string]struct {
		cmd   execution.Command
		field execution.Field // "": the command is valid
		fault execution.Fault
	}{
		"a command":         {execution.Command{Command: "ls"}, "", ""},
		"the longest":       {execution.Command{Command: strings.Repeat("x", 128<<10-1)}, "", ""},
		"no command":        {execution.Command{}, execution.FieldCommand, execution.FaultValue},
		"NUL":               {execution.Command{Command: "a\x00"}, execution.FieldCommand, execution.FaultValue},
		"a long command":    {execution.Command{Command: strings.Repeat("x", 128<<10)}, execution.FieldCommand, execution.FaultValue},
		"a long timeout":    {execution.Command{Command: "ls", Timeout: time.Hour}, execution.FieldTimeout, execution.FaultTooLarge},
		"a timeout below 0": {execution.Command{Command: "ls", Timeout: -1}, execution.FieldTimeout, execution.FaultTooSmall},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, err := test.cmd.Validate(limits)
			if test.field == "" {
				if err != nil || cmd.Timeout != limits.MaxTimeout || cmd.Command != test.cmd.Command { // the default is above the limit
					t.Errorf("%+v, %v", cmd, err)
				}
				return
			}
			if fields := asError(t, err, execution.Invalid).Fields; len(fields) != 1 || fields[0].Field != test.field || fields[0].Fault != test.fault {
				t.Errorf("the faults are %+v", fields)
			}
		})
	}
}

func TestValidateReadRequest(t *testing.T) {
	if err := (execution.ReadRequest{Path: "a/b"}).Validate(); err != nil {
		t.Error(err)
	}
	err := execution.ReadRequest{Path: "../a"}.Validate()
	if fields := asError(t, err, execution.Invalid).Fields; len(fields) != 1 || fields[0].Field != execution.FieldPath || fields[0].Value != "../a" {
		t.Errorf("the faults are %+v", fields)
	}
}

// Files are looked up once, and only for a request that is otherwise valid.
func TestValidateFindsFiles(t *testing.T) {
	lookups := 0
	stored := func(path string, size int64, err error) execution.Input {
		return execution.Input{Path: path, Find: func(context.Context) (int64, execution.Source, error) {
			lookups++
			return size, gives("text"), err
		}}
	}
	missing := errors.New("missing")
	for name, test := range map[string]struct {
		files   []execution.Input
		lookups int
		code    execution.Code // "": the request is valid
	}{
		"found":                {[]execution.Input{stored("a", 4, nil), file("b")}, 1, ""},
		"a bad path":           {[]execution.Input{stored("a", 4, nil), file("..")}, 0, execution.Invalid},
		"too large without it": {[]execution.Input{stored("a", 4, nil), {Path: "b", Size: 1 << 30}}, 0, execution.TooLarge},
		"too large with it":    {[]execution.Input{stored("a", 1<<30, nil)}, 1, execution.TooLarge},
		"missing":              {[]execution.Input{stored("a", 0, missing), stored("b", 4, nil)}, 1, execution.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			lookups = 0
			req := execution.Request{Files: test.files}
			got, err := req.Validate(t.Context(), limits)
			if lookups != test.lookups {
				t.Errorf("%d lookups, not %d", lookups, test.lookups)
			}
			if test.code != "" {
				if execution.AsError(err).Code != test.code {
					t.Errorf("the error is %v", err)
				}
				return
			}
			if err != nil || got.Files[0].Size != 4 || got.Files[0].Find != nil || req.Files[0].Size != 0 {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}
