package runner_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

var _ execution.Sandbox = (*runner.Sandbox)(nil)

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, started(func(s *supervisor) {
			s.say('O', "one ")
			s.say('E', "oh")
			time.Sleep(time.Second)
			s.say('O', "two")
			s.say('X', "exit_code=3\nsignal=0\ntimed_out=0\nwall_us=999900\nkill_us=100\ncpu_us=20000\npeak_kb=4096\n"+
				"memory_kills=0\nrefused_processes=0\nfull=0\n")
			s.say('F', "empty")
			s.say('F', "data/a.bin")
			s.say('D', "\x00\x01")
			s.say('D', "\xff")
			s.say('S', "huge\x00it is too large")
			s.say('Z', "")
		}))
		sandbox := open(t, i)
		began := time.Now()
		got, err := sandbox.Run(t.Context(), request, limits)
		if err != nil {
			t.Fatal(err)
		}
		code := 3
		want := &execution.Result{
			Stdout: "one two", Stderr: "oh", ExitCode: &code, End: execution.End{Reason: execution.Exited},
			Started: began, Duration: 999900 * time.Microsecond,
			Stages: execution.Stages{Run: 999900 * time.Microsecond, Kill: 100 * time.Microsecond},
			Usage:  execution.Usage{CPU: 20 * time.Millisecond, PeakMemoryBytes: 4 << 20},
			Files: []execution.File{
				{Path: "empty", Content: []byte{}}, {Path: "data/a.bin", Size: 3, Content: []byte{0, 1, 0xff}},
			},
			Skipped: []execution.SkippedFile{{Path: "huge", Reason: "it is too large"}},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the result differs (-want +got):\n%s", diff)
		}
		if i.destroyed.Load() != 0 {
			t.Error("Run destroyed the sandbox: that is its caller's business")
		}
	})
}

// Who listens hears of the start, and then each piece of output as it comes,
// while the program runs, with characters whole.
func TestRunTellsTheListener(t *testing.T) {
	var heard []string
	next := make(chan struct{}, 1)
	s := open(t, newInstance(t, started(func(s *supervisor) {
		<-next
		for _, f := range []frame{{'O', "one\xe2\x82"}, {'E', "oh"}, {'O', "\xac"}} {
			s.say(f.kind, f.payload)
			<-next
		}
		s.say('O', "\xe2")
		s.say('O', strings.Repeat("x", limits.OutputBytes))
		s.say('X', fine)
		s.say('Z', "")
	})))
	req := request
	req.Started = func() {
		heard = append(heard, "started")
		next <- struct{}{}
	}
	req.Output = func(stream execution.Stream, text string) {
		heard = append(heard, string(stream)+" "+text)
		select {
		case next <- struct{}{}:
		default: // the last piece
		}
	}
	got, err := s.Run(t.Context(), req, limits)
	if err != nil {
		t.Fatal(err)
	}
	tail := "\uFFFD" + strings.Repeat("x", limits.OutputBytes-len("one€\xe2"))
	if diff := cmp.Diff([]string{"started", "stdout one", "stderr oh", "stdout €", "stdout " + tail}, heard); diff != "" {
		t.Errorf("the listener heard (-want +got):\n%s", diff)
	}
	if want := "one€" + tail + "\n...[truncated]"; got.Stdout != want || got.Stderr != "oh" {
		t.Errorf("the result has %q and %q", got.Stdout, got.Stderr)
	}
}

// The job is what frames.go says, byte by byte.
func TestRunSendsTheJob(t *testing.T) {
	large := strings.Repeat("x", 64<<10)
	jobs := make(chan []frame, 1)
	i := newInstance(t, ready(func(s *supervisor) {
		jobs <- s.job()
		s.say('A', "")
		s.say('X', fine)
		s.say('Z', "")
	}))
	_, err := open(t, i).Run(t.Context(), execution.Request{
		Code: large + "c", Stdin: "in", Env: map[string]string{"B": "x=y", "A": ""}, Args: []string{"", "-v"}, Timeout: 1500 * time.Millisecond, Interactive: true,
		Files: []execution.Input{{Path: "empty"}, execution.Inline("d/f", []byte(large+large))},
	}, limits)
	if err != nil {
		t.Fatal(err)
	}
	want := []frame{
		{'J', "timeout_ms=1500\ncpu_seconds=5\noutput_bytes=64\ninteractive=1\nfiles=3\nfile_bytes=1000\ntotal_bytes=2000\n"},
		{'C', large},
		{'C', "c"},
		{'I', "in"},
		{'V', "A=\x00B=x=y\x00"},
		{'W', "\x00-v\x00"},
		{'F', "empty"},
		{'F', "d/f"},
		{'D', large},
		{'D', large},
	}
	if diff := cmp.Diff(want, <-jobs, cmp.AllowUnexported(frame{})); diff != "" {
		t.Errorf("the job differs (-want +got):\n%s", diff)
	}
}

func TestRunSendsNothingForNothing(t *testing.T) {
	jobs := make(chan []frame, 1)
	i := newInstance(t, ready(func(s *supervisor) {
		jobs <- s.job()
		s.leave()
	}))
	if _, err := open(t, i).Run(t.Context(), execution.Request{Timeout: time.Second}, limits); err == nil {
		t.Fatal("no error")
	}
	job := <-jobs
	if len(job) != 1 || job[0].kind != 'J' || !strings.Contains(job[0].payload, "interactive=0\n") {
		t.Errorf("the job is %v", job)
	}
}

// Whatever goes wrong before the program is let go, the run may be tried again.
func TestRunNotStarted(t *testing.T) {
	for name, then := range map[string]func(s *supervisor){
		"the stream ends":         func(s *supervisor) { s.leave() },
		"half a frame":            func(s *supervisor) { s.send("A\x00\x00"); s.leave() },
		"output":                  func(s *supervisor) { s.say('O', "surprise") },
		"the end":                 func(s *supervisor) { s.say('X', fine) },
		"a second greeting":       func(s *supervisor) { s.say('R', greeting) },
		"a start with a payload":  func(s *supervisor) { s.say('A', "now") },
		"an unknown kind":         func(s *supervisor) { s.say('?', "") },
		"a frame of 64 KB and 1":  func(s *supervisor) { s.send("A\x00\x01\x00\x01") },
		"a frame of 4 GB":         func(s *supervisor) { s.send("A\xff\xff\xff\xff") },
		"a fault":                 func(s *supervisor) { s.say('!', "full=0\nmessage=[Errno 13] Permission denied\n") },
		"a fault without fields":  func(s *supervisor) { s.say('!', "") },
		"silence":                 func(*supervisor) {},
		"a start, then a failure": func(s *supervisor) { s.say('!', "full=2\n"); s.say('A', "") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newInstance(t, ready(func(s *supervisor) { s.job(); then(s) }))
				result, err := open(t, i).Run(t.Context(), request, limits)
				if result != nil || !errors.Is(err, execution.ErrNotStarted) {
					t.Errorf("result %v, error %v", result, err)
				}
			})
		})
	}
}

// What an idle sandbox says spoils its run before that starts.
func TestRunAfterAFrameOutOfTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, ready(func(s *supervisor) {
			s.say('O', "I could not wait")
			s.job()
			s.say('A', "")
			s.say('X', fine)
			s.say('Z', "")
		}))
		sandbox := open(t, i)
		synctest.Wait()
		if _, err := sandbox.Run(t.Context(), request, limits); !errors.Is(err, execution.ErrNotStarted) {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestRunInASandboxThatEndedWhileIdle(t *testing.T) {
	i := newInstance(t, ready(func(s *supervisor) { s.leave() }))
	sandbox := open(t, i)
	<-sandbox.Done()
	if _, err := sandbox.Run(t.Context(), request, limits); !errors.Is(err, execution.ErrNotStarted) {
		t.Errorf("the error is %v", err)
	}
}

// stalled is an instance whose supervisor does not read: a write ends at its
// deadline, which here comes at once.
type stalled struct {
	*instance
	deadline *time.Time
}

func (s stalled) SetWriteDeadline(t time.Time) error {
	*s.deadline = t
	return nil
}

func (s stalled) Write([]byte) (int, error) {
	if left := time.Until(*s.deadline); left < time.Second || left > time.Minute {
		return 0, fmt.Errorf("the write's deadline is in %v", left)
	}
	return 0, os.ErrDeadlineExceeded
}

// A supervisor that does not read is given up after a while.
func TestRunWithADeafSupervisor(t *testing.T) {
	large := request
	large.Code = strings.Repeat("x", 1<<20)
	for name, req := range map[string]execution.Request{"a small job": request, "a large job": large} {
		t.Run(name, func(t *testing.T) {
			sandbox, err := runner.Open(t.Context(), stalled{newInstance(t, ready(func(*supervisor) {})), new(time.Time)}, quiet)
			if err != nil {
				t.Fatal(err)
			}
			_, err = sandbox.Run(t.Context(), req, limits)
			if !errors.Is(err, execution.ErrNotStarted) || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the error is %v", err)
			}
			if err := sandbox.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRunThatDoesNotFit(t *testing.T) {
	i := newInstance(t, ready(func(s *supervisor) { s.job(); s.say('!', "full=1\nmessage=No space left on device\n") }))
	_, err := open(t, i).Run(t.Context(), request, limits)
	var domain *execution.Error
	if !errors.As(err, &domain) || domain.Code != execution.TooLarge || errors.Is(err, execution.ErrNotStarted) {
		t.Fatalf("the error is %v", err)
	}
	if !strings.Contains(domain.Message, "1 MB") {
		t.Errorf("the message is %q", domain.Message)
	}
}

// A sandbox that ends under a program leaves what the program had printed.
func TestRunLost(t *testing.T) {
	for name, then := range map[string]func(s *supervisor){
		"the stream ends":       func(s *supervisor) { s.leave() },
		"half a header":         func(s *supervisor) { s.send("X\x00"); s.leave() },
		"half a payload":        func(s *supervisor) { s.send("O\x00\x00\x00\x09half"); s.leave() },
		"a second start":        func(s *supervisor) { s.say('A', "") },
		"a second greeting":     func(s *supervisor) { s.say('R', greeting) },
		"a fault":               func(s *supervisor) { s.say('!', "full=1\n") },
		"a file before the end": func(s *supervisor) { s.say('F', "early") },
		"data before the end":   func(s *supervisor) { s.say('D', "early") },
		"a skipped file":        func(s *supervisor) { s.say('S', "a\x00b") },
		"done before the end":   func(s *supervisor) { s.say('Z', "") },
		"a server's frame":      func(s *supervisor) { s.say('J', "") },
		"a pong that says more": func(s *supervisor) { s.say('P', "x") },
		"a flood of pongs": func(s *supervisor) {
			for range 1000 {
				s.say('P', "")
			}
		},
		"a frame of 64 KB + 1": func(s *supervisor) { s.send("O\x00\x01\x00\x01") },
		"a frame of 4 GB":      func(s *supervisor) { s.send("O\xff\xff\xff\xff") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				result := run(t, started(func(s *supervisor) {
					s.say('O', "so far")
					s.say('E', "so good")
					time.Sleep(300 * time.Millisecond)
					then(s)
				}))
				if result.End.Reason != execution.SandboxLost || exitCode(result) != 137 || result.End.Message == "" {
					t.Errorf("the end is %+v, exit code %d", result.End, exitCode(result))
				}
				if result.Stdout != "so far" || result.Stderr != "so good" {
					t.Errorf("the output is %q, %q", result.Stdout, result.Stderr)
				}
				if result.Duration != 300*time.Millisecond {
					t.Errorf("it is said to have run for %v", result.Duration)
				}
			})
		})
	}
}

// Once the program has ended its end is known, whatever becomes of its files.
func TestRunWithBrokenFiles(t *testing.T) {
	kilobyte := strings.Repeat("k", 1000)
	for name, test := range map[string]struct {
		then  func(s *supervisor)
		files int // that are returned all the same
	}{
		"the stream ends":     {func(s *supervisor) { s.say('F', "a"); s.leave() }, 0},
		"a later one is cut":  {func(s *supervisor) { s.say('F', "a"); s.say('F', "b"); s.say('D', "b"); s.leave() }, 1},
		"nothing follows":     {func(s *supervisor) { s.say('F', "a") }, 0},
		"output":              {func(s *supervisor) { s.say('O', "late") }, 0},
		"error output":        {func(s *supervisor) { s.say('E', "late") }, 0},
		"a second end":        {func(s *supervisor) { s.say('X', fine) }, 0},
		"a second start":      {func(s *supervisor) { s.say('A', "") }, 0},
		"data without a file": {func(s *supervisor) { s.say('D', "a") }, 0},
		"too many files": {func(s *supervisor) {
			for _, path := range []string{"a", "b", "c", "d"} {
				s.say('F', path)
			}
		}, 3},
		"a file that is too large": {func(s *supervisor) { s.say('F', "a"); s.say('D', kilobyte); s.say('D', "!") }, 0},
		"an empty piece":           {func(s *supervisor) { s.say('F', "a"); s.say('D', "") }, 0},
		"data after a skipped one": {func(s *supervisor) {
			s.say('F', "a")
			s.say('S', "b\x00no")
			s.say('D', "more")
		}, 1},
		"too much altogether": {func(s *supervisor) {
			for _, path := range []string{"a", "b", "c"} {
				s.say('F', path)
				s.say('D', kilobyte)
			}
		}, 2},
		"a path that leads out":    {func(s *supervisor) { s.say('F', "../a") }, 0},
		"one that does so inside":  {func(s *supervisor) { s.say('F', "a/../../b") }, 0},
		"an absolute path":         {func(s *supervisor) { s.say('F', "/etc/passwd") }, 0},
		"an empty path":            {func(s *supervisor) { s.say('F', "") }, 0},
		"a path with NUL":          {func(s *supervisor) { s.say('F', "a\x00b") }, 0},
		"a path that is not UTF-8": {func(s *supervisor) { s.say('F', "\xff") }, 0},
		"a path that is too long":  {func(s *supervisor) { s.say('F', strings.Repeat("a/", 600)+"a") }, 0},
		"a path with a dot":        {func(s *supervisor) { s.say('F', "./a") }, 0},
		"a folder":                 {func(s *supervisor) { s.say('F', "a/") }, 0},
		"too many skipped files": {func(s *supervisor) {
			for n := range 30 {
				s.say('S', fmt.Sprintf("f%d\x00no", n))
			}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				result := run(t, ended(func(s *supervisor) {
					test.then(s)
					if name != "nothing follows" {
						s.say('Z', "") // in vain
					}
				}))
				if result.End.Reason != execution.Exited || exitCode(result) != 0 || result.Stdout != "out" {
					t.Errorf("the end is %+v, exit code %d, output %q", result.End, exitCode(result), result.Stdout)
				}
				if !strings.Contains(result.End.Message, "not all files") {
					t.Errorf("the message is %q", result.End.Message)
				}
				if len(result.Files) != test.files || len(result.Skipped) > limits.ResultFiles+2+21 {
					t.Errorf("%d files, %d skipped", len(result.Files), len(result.Skipped))
				}
				checkSizes(t, result.Files)
				if took := time.Since(began); took > time.Minute {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func checkSizes(t *testing.T, files []execution.File) {
	t.Helper()
	var total int64
	for _, file := range files {
		size := int64(len(file.Content))
		if size != file.Size {
			t.Errorf("%s is said to have %d bytes, not %d", file.Path, file.Size, size)
		}
		if size > limits.ResultFileBytes {
			t.Errorf("%s has %d bytes", file.Path, size)
		}
		total += size
	}
	if total > limits.ResultBytes {
		t.Errorf("the files have %d bytes", total)
	}
}

// Files may take longer to come than the program had.
func TestRunWithSlowFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		result := run(t, ended(func(s *supervisor) {
			time.Sleep(20 * time.Second)
			s.say('F', "a")
			s.say('Z', "")
		}))
		if len(result.Files) != 1 || result.End != (execution.End{Reason: execution.Exited}) {
			t.Errorf("files %v, end %+v", result.Files, result.End)
		}
	})
}

// A report may use its limits up to the last byte.
func TestRunAtTheLimits(t *testing.T) {
	result := run(t, started(func(s *supervisor) {
		s.say('O', strings.Repeat("o", 64))
		s.say('X', fine)
		s.say('F', "a")
		s.say('D', strings.Repeat("a", 1000))
		s.say('F', "b")
		s.say('F', "c")
		s.say('D', strings.Repeat("c", 1000))
		for range 4 { // of the server's limit and a last one that says so
			s.say('S', "x\x00no")
		}
		s.say('Z', "")
	}))
	if result.End != (execution.End{Reason: execution.Exited}) || len(result.Files) != 3 || len(result.Skipped) != 4 {
		t.Errorf("the end is %+v, with %d files, %d skipped", result.End, len(result.Files), len(result.Skipped))
	}
	if result.Stdout != strings.Repeat("o", 64) {
		t.Errorf("the output is %q", result.Stdout)
	}
}

func TestRunIgnoresWhatFollowsTheReport(t *testing.T) {
	result := run(t, ended(func(s *supervisor) {
		s.say('Z', "")
		s.say('F', "late")
		s.say('D', "late")
	}))
	if len(result.Files) > 0 || result.End != (execution.End{Reason: execution.Exited}) {
		t.Errorf("files %v, end %+v", result.Files, result.End)
	}
}

func TestRunCutsOutput(t *testing.T) {
	const suffix = "\n...[truncated]"
	result := run(t, started(func(s *supervisor) {
		s.say('O', strings.Repeat("o", 60))
		s.say('O', "this is beyond the limit")
		s.say('O', "and so is this")
		s.say('E', "the supervisor left something out")
		s.say('E', "")
		s.say('X', fine)
		s.say('Z', "")
	}))
	if want := strings.Repeat("o", 60) + "this" + suffix; result.Stdout != want {
		t.Errorf("stdout is %q", result.Stdout)
	}
	if want := "the supervisor left something out" + suffix; result.Stderr != want {
		t.Errorf("stderr is %q", result.Stderr)
	}
}

// Text from a sandbox must not control a terminal that shows it.
func TestRunEscapesSkippedFiles(t *testing.T) {
	result := run(t, ended(func(s *supervisor) {
		s.say('S', "a\x1b[2Jb\nc\xff\u0085\u00e9\x00why\r")
		s.say('S', "no reason")
		s.say('Z', "")
	}))
	want := []execution.SkippedFile{
		{Path: `a\x1b[2Jb\x0ac\xff\x85é`, Reason: `why\x0d`}, {Path: "no reason"},
	}
	if diff := cmp.Diff(want, result.Skipped); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The deadline is the server's: a supervisor that never reports is not waited for.
func TestRunWithoutReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		result := run(t, started(func(s *supervisor) { s.say('O', "so far") }))
		if took := time.Since(began); took < request.Timeout || took > request.Timeout+5*time.Second {
			t.Errorf("a run of at most %v took %v", request.Timeout, took)
		}
		if !result.TimedOut() || result.ExitCode != nil || result.Duration != request.Timeout || result.Stdout != "so far" {
			t.Errorf("wrong result: %+v", result)
		}
		if !strings.Contains(result.End.Message, "2000 ms") || !strings.Contains(result.End.Message, "did not report") {
			t.Errorf("the message is %q", result.End.Message)
		}
	})
}

// Neither does a flood of output stave the deadline off.
func TestRunWithEndlessOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		stop := make(chan struct{})
		result := run(t, started(func(s *supervisor) {
			for {
				select {
				case <-stop:
					return
				default:
					s.say('O', "more")
					time.Sleep(10 * time.Millisecond)
				}
			}
		}))
		close(stop)
		if took := time.Since(began); !result.TimedOut() || took > request.Timeout+5*time.Second {
			t.Errorf("the end is %+v after %v", result.End, took)
		}
	})
}

func TestRunTimedOut(t *testing.T) {
	result := run(t, started(func(s *supervisor) {
		s.say('O', "so far")
		s.say('X', strings.NewReplacer("exit_code=0", "exit_code=137", "signal=0", "signal=9", "timed_out=0", "timed_out=1").Replace(fine))
		s.say('F', "kept")
		s.say('Z', "")
	}))
	want := execution.End{Reason: execution.Timeout, Message: "stopped after 2000 ms"}
	if result.End != want || result.ExitCode != nil || !result.Failed() || len(result.Files) != 1 || result.Stdout != "so far" {
		t.Errorf("wrong result: %+v", result)
	}
}

// When the caller leaves, Run returns at once, and Close ends the sandbox.
func TestRunCancelled(t *testing.T) {
	for name, script := range map[string]func(s *supervisor){
		"before the start":  ready(func(s *supervisor) { s.job() }),
		"during the run":    started(func(s *supervisor) { s.say('O', "so far") }),
		"during the report": ended(func(s *supervisor) { s.say('F', "a") }),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newInstance(t, script)
				sandbox := open(t, i)
				why := errors.New("the caller left")
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(why) })
				began := time.Now()
				result, err := sandbox.Run(ctx, request, limits)
				if result != nil || !errors.Is(err, why) {
					t.Errorf("result %v, error %v", result, err)
				}
				if took := time.Since(began); took != time.Second {
					t.Errorf("it took %v", took)
				}
				if err := sandbox.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				if i.destroyed.Load() == 0 {
					t.Error("the instance was not destroyed")
				}
			})
		})
	}
}
