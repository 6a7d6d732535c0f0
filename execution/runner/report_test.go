package runner

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
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
	return newReport(context.Background(), &task{timeout: time.Second, limits: reportLimits})
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
			r.fail(err, loss{})
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
	if len(r.Files) > limits.ResultFiles || len(r.Skipped) > limits.ResultFiles+2+maxTempListed {
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
			r.fail(test.err, loss{})
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

// fed is a report that has taken in frames.
func fed(r *report, frames ...frame) *report {
	for _, f := range frames {
		if err := r.take(f); err != nil {
			r.fail(err, loss{})
			break
		}
	}
	return r
}

// A supervisor that is not ours any more makes no answer large: what it says of
// skipped files is bounded in each and in all.
func TestSkippedFilesAreBounded(t *testing.T) {
	hostile := strings.Repeat("\x01", 30_000)
	limits := reportLimits
	limits.ResultFiles = 10_000
	for name, f := range map[string]frame{
		"skipped": {kindSkipped, []byte(hostile + "\x00" + hostile)},
		"torn":    {kindTorn, []byte(hostile)},
	} {
		r := fed(newReport(context.Background(), &task{limits: limits}), frame{kindEnded, written(nil)})
		for i := range limits.ResultFiles {
			if f.kind == kindTorn {
				fed(r, frame{kindFile, fmt.Appendf(nil, "%s%d", strings.Repeat("\x02", 200), i)})
			}
			fed(r, f)
		}
		result := fed(r, frame{kindDone, nil}).result()
		if r.failure != "" {
			t.Errorf("%s: %s", name, r.failure)
		}
		total := 0
		for _, file := range result.Skipped {
			if len(file.Path) > 4100 || len(file.Reason) > 1100 {
				t.Fatalf("%s: a path of %d bytes, a reason of %d", name, len(file.Path), len(file.Reason))
			}
			total += len(file.Path) + len(file.Reason)
		}
		last := result.Skipped[len(result.Skipped)-1]
		if total > 1<<20 || len(result.Skipped) < 100 || !strings.Contains(last.Reason, "too long to list") {
			t.Errorf("%s: %d bytes of %d files, the last is %+v", name, total, len(result.Skipped), last)
		}
	}
}

// What a supervisor claims to have measured is not passed on where it cannot be true.
func TestFactsAreClamped(t *testing.T) {
	limits := reportLimits
	limits.CPUs, limits.MemoryBytes = 2, 64<<20
	lie := frame{kindEnded, written(map[string]string{
		"wall_us": "9223372036854775", "kill_us": "9223372036854775", "cpu_us": "9223372036854775", "peak_kb": "9007199254740991",
	})}
	began := time.Now()
	r := fed(newReport(context.Background(), &task{limits: limits}), lie, frame{kindDone, nil})
	result, waited := r.result(), time.Since(began)
	if result.Duration > waited || r.facts.kill > waited {
		t.Errorf("it ran for %v and died for %v, within %v", result.Duration, r.facts.kill, waited)
	}
	if most := time.Duration(max(2, runtime.NumCPU()))*waited + cpuSlack; result.Usage.CPU > most || result.Usage.CPU < 0 {
		t.Errorf("it used %v of CPU within %v", result.Usage.CPU, waited)
	}
	if result.Usage.PeakMemoryBytes != limits.MemoryBytes {
		t.Errorf("it used %d bytes of %d", result.Usage.PeakMemoryBytes, limits.MemoryBytes)
	}
	truth := frame{kindEnded, written(map[string]string{"wall_us": "1", "kill_us": "1", "cpu_us": "5", "peak_kb": "7"})}
	result = fed(newReport(context.Background(), &task{limits: limits}), truth).result()
	if result.Duration != time.Microsecond || result.Usage.CPU != 5*time.Microsecond || result.Usage.PeakMemoryBytes != 7<<10 {
		t.Errorf("what may be true becomes %v, %+v", result.Duration, result.Usage)
	}
}

// Output for which there is no memory is cut, and the result says so.
func TestOutputIsCharged(t *testing.T) {
	limits := reportLimits
	limits.OutputBytes = 1 << 20
	const budget = 1 << 20
	account := execution.NewBudget(budget).Open("")
	piece := []byte(strings.Repeat("x", 10_000))
	r := newReport(execution.WithAccount(context.Background(), account), &task{limits: limits})
	for range 100 {
		fed(r, frame{kindStdout, piece})
	}
	result := fed(r, frame{kindStderr, []byte("short")}, frame{kindEnded, written(nil)}, frame{kindDone, nil}).result()
	if size := len(result.Stdout); size < budget/outputTimes-len(piece) || size > budget/outputTimes+len(piece) || !strings.HasSuffix(result.Stdout, truncated) {
		t.Errorf("%d bytes are kept: ...%q", size, result.Stdout[size-20:])
	}
	if result.Stderr != "short" || result.ExitCode == nil || !strings.Contains(result.End.Message, "MAX_IN_FLIGHT_MB") {
		t.Errorf("%+v", result)
	}
	account.Close()

	free := fed(newReport(context.Background(), &task{limits: limits}), frame{kindStdout, piece}, frame{kindEnded, written(nil)}, frame{kindDone, nil})
	if result := free.result(); result.Stdout != string(piece) || result.End.Message != "" {
		t.Errorf("where nothing is bounded, %d bytes, %q", len(result.Stdout), result.End.Message)
	}
}
