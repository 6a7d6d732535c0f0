package runner

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/vivarium-sandbox/vivarium/execution"
)

var reportLimits = execution.Limits{
	CPUTime: time.Second, OutputBytes: 8, ResultFiles: 2, ResultFileBytes: 6, ResultBytes: 10,
}

func newTestReport() *report {
	return newReport(execution.Request{Timeout: time.Second}, reportLimits)
}

// takeAll feeds a stream of frames to a report as Run does, up to the first
// that it refuses.
func takeAll(r *report, stream []byte) {
	in := bufio.NewReader(bytes.NewReader(stream))
	for !r.complete {
		f, err := readFrame(in)
		if err == nil {
			err = r.take(f)
		}
		if err != nil {
			r.fail(err)
			return
		}
	}
}

func FuzzReport(f *testing.F) {
	end := string(written(nil))
	for _, frames := range [][]frame{
		{{kindEnded, []byte(end)}, {kindDone, nil}},
		{{kindStdout, []byte("hello, world")}, {kindStderr, nil}, {kindEnded, []byte(end)}, {kindDone, nil}},
		{{kindEnded, []byte(end)}, {kindFile, []byte("a/b")}, {kindData, []byte("xyz")}, {kindDone, nil}},
		{{kindEnded, []byte(end)}, {kindFile, []byte("../b")}, {kindDone, nil}},
		{{kindEnded, []byte(end)}, {kindSkipped, []byte("a\x00because")}, {kindDone, nil}},
		{{kindEnded, written(map[string]string{"exit_code": "-1", "signal": "99"})}, {kindDone, nil}},
		{{kindData, []byte("x")}},
	} {
		var stream bytes.Buffer
		out := frameWriter{w: bufio.NewWriter(&stream)}
		for _, frame := range frames {
			_ = out.frame(frame.kind, frame.payload)
		}
		if err := out.w.Flush(); err != nil {
			f.Fatal(err)
		}
		f.Add(stream.Bytes())
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := newTestReport()
		takeAll(r, stream)
		checkResult(t, r.result(), reportLimits)
	})
}

// checkResult checks what holds for whatever a sandbox says.
func checkResult(t *testing.T, r *execution.Result, limits execution.Limits) {
	t.Helper()
	for _, text := range []string{r.Stdout, r.Stderr} {
		// One byte may become a U+FFFD of three.
		if !utf8.ValidString(text) || len(text) > 3*limits.OutputBytes+len(truncated) {
			t.Errorf("output %q", text)
		}
	}
	if len(r.Files) > limits.ResultFiles || len(r.Skipped) > limits.ResultFiles+2 {
		t.Errorf("%d files, %d skipped", len(r.Files), len(r.Skipped))
	}
	var total int64
	for _, file := range r.Files {
		size := int64(len(file.Content))
		if fault := execution.PathFault(file.Path); fault != "" || size > limits.ResultFileBytes {
			t.Errorf("the file %q of %d bytes %s", file.Path, size, fault)
		}
		total += size
	}
	if total > limits.ResultBytes {
		t.Errorf("files of %d bytes", total)
	}
	for _, file := range r.Skipped {
		if strings.ContainsFunc(file.Path+file.Reason, unicode.IsControl) || !utf8.ValidString(file.Path+file.Reason) {
			t.Errorf("skipped %q: %q", file.Path, file.Reason)
		}
	}
	if (r.ExitCode == nil) != r.TimedOut() || r.ExitCode != nil && (*r.ExitCode < 0 || *r.ExitCode > 255) {
		t.Errorf("exit code %v of an end %+v", r.ExitCode, r.End)
	}
	if r.Duration < 0 || r.Usage.CPU < 0 || r.Usage.PeakMemoryBytes < 0 || r.End.Reason == "" {
		t.Errorf("wrong result: %+v", r)
	}
}

// A report that fails keeps what it has, and says what is missing.
func TestReportFail(t *testing.T) {
	for name, test := range map[string]struct {
		ended bool
		err   error
		want  execution.Reason
	}{
		"the stream ended":             {false, errors.New("EOF"), execution.SandboxLost},
		"the protocol was broken":      {false, errFrame, execution.SandboxLost},
		"no report in time":            {false, errLate, execution.Timeout},
		"the stream ended among files": {true, errors.New("EOF"), execution.Exited},
		"no files in time":             {true, errLate, execution.Exited},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTestReport()
			r.stdout.add([]byte("so far"))
			r.ended = test.ended
			r.fail(test.err)
			result := r.result()
			if result.End.Reason != test.want || result.End.Message == "" || result.Stdout != "so far" {
				t.Errorf("wrong result: %+v", result)
			}
			checkResult(t, result, reportLimits)
		})
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                   "",
		"data/ü 😀.csv":       "data/ü 😀.csv",
		"a\nb\tc\x00":        `a\x0ab\x09c\x00`,
		"\x1b[31m\x7f":       `\x1b[31m\x7f`,
		"\u0080\u009f\u00a0": `\x80\x9f` + "\u00a0",
		"\xff\xe2\x82":       `\xff\xe2\x82`,
		"\uFFFD":             "\uFFFD", // one that is really there
	} {
		if got := printable(text); got != want {
			t.Errorf("%q became %q, not %q", text, got, want)
		}
	}
}
