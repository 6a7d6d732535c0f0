package executiontest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/executiontest"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var limits = execution.Limits{
	MaxTimeout: time.Minute, CPUTime: 5 * time.Second, OutputBytes: 10, WorkspaceBytes: 1 << 20,
	ResultFiles: 10, ResultFileBytes: 1 << 20, ResultBytes: 1 << 20,
}

// newStack puts everything between a door and a backend together, as the
// command line does.
func newStack(t *testing.T, b *executiontest.Backend) *execution.Executor {
	t.Helper()
	start := func(ctx context.Context, spec execution.Spec) (execution.Sandbox, error) {
		instance, err := b.Start(ctx, spec)
		if err != nil {
			return nil, err
		}
		return runner.Open(ctx, instance, slog.New(slog.DiscardHandler))
	}
	p, err := pool.New(start, pool.Options{Target: 2, Max: 4})
	if err != nil {
		t.Fatal(err)
	}
	digests, err := pool.NewDigests(b, 1)
	if err != nil {
		t.Fatal(err)
	}
	executor := execution.NewExecutor(&pool.Keeper{Pool: p, Digests: digests, Image: "fake"},
		execution.Options{Limits: limits, MaxInFlight: 100})
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := errors.Join(executor.Close(ctx), p.Close(ctx)); err != nil {
			t.Error(err)
		}
		if live := b.Live(); live != 0 {
			t.Errorf("%d instances are left", live)
		}
	})
	return executor
}

// echo is a program that returns its input.
func echo(ctx context.Context, req execution.Request) executiontest.Outcome {
	files, err := executiontest.Read(ctx, req.Files)
	if err != nil {
		return executiontest.Outcome{Stderr: err.Error(), ExitCode: 1}
	}
	return executiontest.Outcome{
		Stdout: req.Code, Stderr: req.Stdin + req.Env["A"] + strings.Join(req.Args, ","), ExitCode: int(req.Timeout.Seconds()), Files: files,
	}
}

func TestStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		executor := newStack(t, &executiontest.Backend{Program: echo})
		got, err := executor.Execute(t.Context(), execution.Request{
			Code: "more than ten", Stdin: "in", Env: map[string]string{"A": "+="}, Args: []string{"a", "", "b"}, Timeout: 3 * time.Second,
			Files: []execution.Input{execution.Inline("a/b", []byte(strings.Repeat("x", 200_000))), execution.Inline("c", nil)},
		})
		if err != nil {
			t.Fatal(err)
		}
		code := 3
		want := &execution.Result{
			Stdout: "more than \n...[truncated]", Stderr: "in+=a,,b", ExitCode: &code, End: execution.End{Reason: execution.Exited},
			Files: []execution.File{{Path: "a/b", Size: 200_000, Content: []byte(strings.Repeat("x", 200_000))}, {Path: "c", Content: []byte{}}},
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(bytes.Equal), cmpopts.IgnoreFields(execution.Result{}, "Started")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// A fake passes files to a request's Keep, as the runner does.
func TestKeep(t *testing.T) {
	for name, run := range map[string]func(execution.Request) (*execution.Result, error){
		"sandbox": func(req execution.Request) (*execution.Result, error) {
			return executiontest.NewSandbox(echo).Run(t.Context(), req, limits)
		},
		"stack": func(req execution.Request) (*execution.Result, error) {
			return newStack(t, &executiontest.Backend{Program: echo}).Execute(t.Context(), req)
		},
	} {
		got, err := run(execution.Request{
			Files: []execution.Input{execution.Inline("a", []byte("text")), execution.Inline("b", nil)},
			Keep: func(_ context.Context, path string, content io.Reader) (string, error) {
				data, err := io.ReadAll(content)
				if path == "b" {
					err = &execution.Error{Code: execution.StoreFull, Message: "full"}
				}
				return "id of " + string(data), err
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]execution.File{{Path: "a", Size: 4, ID: "id of text"}}, got.Files); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff([]execution.SkippedFile{{Path: "b", Reason: "it could not be stored: full"}}, got.Skipped); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", name, diff)
		}
	}
}

func TestStackUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		executor := newStack(t, &executiontest.Backend{Program: echo})
		var callers sync.WaitGroup
		for n := range 100 {
			callers.Go(func() {
				text := fmt.Sprint("caller ", n)
				got, err := executor.Execute(t.Context(), execution.Request{Code: text})
				if err != nil || got.Stdout != text {
					t.Errorf("caller %d got %+v, %v", n, got, err)
				}
			})
		}
		callers.Wait()
	})
}

// When the engine restarts under idle and running sandboxes, what runs is lost
// and what comes next is served.
func TestStackHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &executiontest.Backend{Program: func(ctx context.Context, req execution.Request) executiontest.Outcome {
			if req.Code == "wait" {
				<-ctx.Done()
			}
			return executiontest.Outcome{}
		}}
		executor := newStack(t, b)
		lost := make(chan *execution.Result, 1)
		go func() {
			result, err := executor.Execute(t.Context(), execution.Request{Code: "wait", Timeout: time.Minute})
			if err != nil {
				t.Error(err)
			}
			lost <- result
		}()
		synctest.Wait()
		b.KillAll()
		if result := <-lost; result != nil && result.End.Reason != execution.SandboxLost {
			t.Errorf("the end is %+v", result.End)
		}
		for range 5 {
			if _, err := executor.Execute(t.Context(), execution.Request{}); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestBackendFails(t *testing.T) {
	for _, operation := range []string{"resolve", "start", "sweep", "health"} {
		why := errors.New("no " + operation)
		b := &executiontest.Backend{Fail: func(asked string) error {
			if asked == operation {
				return why
			}
			return nil
		}}
		errs := make(map[string]error)
		_, errs["resolve"] = b.Resolve(t.Context(), "image")
		instance, err := b.Start(t.Context(), execution.Spec{})
		if err == nil {
			err = instance.Destroy(t.Context())
		}
		errs["start"] = err
		_, errs["sweep"] = b.Sweep(t.Context())
		errs["health"] = b.Health(t.Context())
		for name, err := range errs {
			if got := errors.Is(err, why); got != (name == operation) {
				t.Errorf("%s should fail; %s returns %v", operation, name, err)
			}
		}
	}
}

func TestSandbox(t *testing.T) {
	s := executiontest.NewSandbox(echo)
	got, err := s.Run(t.Context(), execution.Request{Code: "hello"}, limits)
	if err != nil || got.Stdout != "hello" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.Run(t.Context(), execution.Request{}, limits); !errors.Is(err, execution.ErrNotStarted) {
		t.Errorf("a second run: %v", err)
	}
	if err := s.Close(); err != nil || s.Closed() != 1 {
		t.Errorf("Close: %v, %d times", err, s.Closed())
	}
	<-s.Done()
}

func TestSandboxEnds(t *testing.T) {
	forever := func(ctx context.Context, _ execution.Request) executiontest.Outcome {
		<-ctx.Done()
		return executiontest.Outcome{}
	}
	dead := executiontest.NewSandbox(nil)
	dead.Die()
	if _, err := dead.Run(t.Context(), execution.Request{}, limits); !errors.Is(err, execution.ErrNotStarted) {
		t.Errorf("in a dead sandbox: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		dying := executiontest.NewSandbox(forever)
		time.AfterFunc(time.Second, dying.Die)
		if got, err := dying.Run(t.Context(), execution.Request{}, limits); err != nil || got.End.Reason != execution.SandboxLost {
			t.Errorf("in a dying sandbox: %+v, %v", got, err)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := executiontest.NewSandbox(forever).Run(ctx, execution.Request{}, limits); !errors.Is(err, context.Canceled) {
		t.Errorf("without a caller: %v", err)
	}
}

// silent is an executor for which every program succeeds and prints nothing.
type silent struct{}

func (silent) Execute(context.Context, execution.Request) (*execution.Result, error) {
	return &execution.Result{ExitCode: new(int), End: execution.End{Reason: execution.Exited}}, nil
}

const helper = "EXECUTIONTEST_RUN_SILENT"

// TestRunSilent is run by TestRunFindsFaults alone, in another process.
func TestRunSilent(t *testing.T) {
	if os.Getenv(helper) != "" {
		executiontest.Run(t, silent{})
	}
}

// A suite that nothing fails would be worth nothing.
func TestRunFindsFaults(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRunSilent$", "-test.v")
	cmd.Env = append(os.Environ(), helper+"=1")
	text, err := cmd.CombinedOutput()
	if err == nil {
		t.Error("an executor that does nothing passes")
	}
	failed := strings.Count(string(text), "        --- FAIL: ")
	passed := strings.Count(string(text), "        --- PASS: ")
	if failed < 50 || passed > 6 { // some programs are right to print nothing
		t.Errorf("%d cases found fault, %d did not:\n%s", failed, passed, text)
	}
}
