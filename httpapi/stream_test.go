package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

const (
	streamPath = "/v1/execute/stream"
	streamPost = "POST " + streamPath + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
		"Content-Length: 12\r\n\r\n{\"code\": \"\"}"
	emptyResult = `event: result` + "\n" + `data: {"exit_code":0,"timed_out":false,"duration_ms":0,"files":[],` +
		`"end":{"reason":"exited"},"usage":{"cpu_ms":0,"peak_memory_bytes":0},"queue_ms":0,"skipped_files":[],"results":[]}`
)

// outputs returns the event of an output.
func outputs(stream, data string) string {
	encoded, _ := json.Marshal(data)
	return fmt.Sprintf("event: output\ndata: {\"stream\":%q,\"data\":%s}", stream, encoded)
}

// dialStream opens a stream. The connection lasts until the test ends.
func dialStream(t *testing.T, executor execute) (net.Conn, http.Header, *bufio.Reader) {
	t.Helper()
	conn := newServer(t, executor).dial()
	if _, err := io.WriteString(conn, streamPost); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = resp.Body.Close()
	})
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the status is %d", resp.StatusCode)
	}
	return conn, resp.Header, bufio.NewReader(resp.Body)
}

// nextEvent reads up to the empty line that ends an event, or a comment.
func nextEvent(t *testing.T, in *bufio.Reader) string {
	t.Helper()
	var event strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %q", err, event.String()+line)
		}
		if line == "\n" {
			return strings.TrimSuffix(event.String(), "\n")
		}
		event.WriteString(line)
	}
}

// Events arrive in order while the program runs, with comments during silence.
func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, header, in := dialStream(t, func(_ context.Context, req execution.Request) (*execution.Result, error) {
			time.Sleep(time.Minute) // in the queue
			req.Started()
			time.Sleep(20 * time.Second)
			req.Output(execution.Stdout, "one\n\"é\"")
			time.Sleep(time.Second)
			req.Output(execution.Stderr, "oh")
			time.Sleep(31 * time.Second)
			req.Output(execution.Stdout, "two")
			return &execution.Result{
				Stdout: "one\n\"é\"two\uFFFD\n...[truncated]", Stderr: "oh",
				ExitCode: new(int), End: execution.End{Reason: execution.Exited},
			}, nil
		})
		began := time.Now()
		for name, want := range map[string]string{
			"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no",
		} {
			if got := header.Get(name); got != want {
				t.Errorf("%s is %q", name, got)
			}
		}
		for _, want := range []struct {
			after int // seconds since the start
			event string
		}{
			{15, ": ping"},
			{20, outputs("stdout", "one\n\"é\"")},
			{21, outputs("stderr", "oh")},
			{36, ": ping"},
			{51, ": ping"},
			{52, outputs("stdout", "two")},
			{52, outputs("stdout", "\uFFFD\n...[truncated]")},
			{52, emptyResult},
		} {
			if diff := cmp.Diff(want.event, nextEvent(t, in)); diff != "" {
				t.Errorf("the event differs (-want +got):\n%s", diff)
			}
			if after := int(time.Since(began).Seconds()); after != want.after {
				t.Errorf("%s came after %d s", want.event, after)
			}
		}
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("after the result came %q, %v", rest, err)
		}
	})
}

// Errors before the start are those of /v1/execute.
func TestStreamRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		body     string
		executor execute
		status   int
	}{
		"no JSON":        {`{`, validates, http.StatusUnprocessableEntity},
		"no code":        {`{}`, validates, http.StatusUnprocessableEntity},
		"a null":         {`{"code": "", "timeout_ms": null}`, validates, http.StatusUnprocessableEntity},
		"a bad path":     {`{"code": "", "files": [{"path": "..", "content_base64": ""}]}`, validates, http.StatusUnprocessableEntity},
		"a long timeout": {`{"code": "", "timeout_ms": 60001}`, validates, http.StatusUnprocessableEntity},
		"no such file":   {`{"code": "", "files": [{"path": "a", "file_id": "x"}]}`, validates, http.StatusNotFound},
		"a huge body":    {`{"code": "` + strings.Repeat("x", maxBody) + `"}`, validates, http.StatusRequestEntityTooLarge},
		"too large":      {`{"code": ""}`, fails(&execution.Error{Code: execution.TooLarge, Message: "m"}), http.StatusRequestEntityTooLarge},
		"busy":           {`{"code": ""}`, fails(&execution.Error{Code: execution.Busy, Message: "m"}), http.StatusTooManyRequests},
		"unavailable":    {`{"code": ""}`, fails(&execution.Error{Code: execution.Unavailable, Message: "m"}), http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			h := handler(test.executor)
			plain := send(h, test.body)
			streamed := serve(h, request(http.MethodPost, streamPath, test.body))
			streamed.want(t, test.status, plain.body)
			if retry := streamed.header.Get("Retry-After"); retry != plain.header.Get("Retry-After") {
				t.Errorf("Retry-After is %q", retry)
			}
		})
	}
}

// An executor that reports its output only at the end produces a stream too.
func TestStreamOfOutputAtTheEnd(t *testing.T) {
	a := serve(handler(func(context.Context, execution.Request) (*execution.Result, error) {
		return &execution.Result{Stdout: "out", Stderr: "err", ExitCode: new(int), End: execution.End{Reason: execution.Exited}}, nil
	}), request(http.MethodPost, streamPath, `{"code": ""}`))
	want := strings.Join([]string{outputs("stdout", "out"), outputs("stderr", "err"), emptyResult}, "\n\n")
	if diff := cmp.Diff(want, a.body); diff != "" || a.status != http.StatusOK {
		t.Errorf("%d (-want +got):\n%s", a.status, diff)
	}
}

// Failures of the service after the start are an event without internal details.
func TestStreamFailure(t *testing.T) {
	for name, test := range map[string]struct {
		fail func() error
		want string
	}{
		"ours":    {func() error { return errors.New("secret") }, "internal error; the log of the server has more under request "},
		"a panic": {func() error { panic("secret") }, "internal error; the log of the server has more under request "},
		"told":    {func() error { return &execution.Error{Code: execution.Unavailable, Message: "gone"} }, "gone"},
	} {
		t.Run(name, func(t *testing.T) {
			a := serve(handler(func(_ context.Context, req execution.Request) (*execution.Result, error) {
				req.Started()
				req.Output(execution.Stdout, "x")
				return nil, test.fail()
			}), request(http.MethodPost, streamPath, `{"code": ""}`))
			start := outputs("stdout", "x") + "\n\nevent: error\ndata: {\"message\":\"" + test.want
			if a.status != http.StatusOK || !strings.HasPrefix(a.body, start) || strings.Contains(a.body, "secret") {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
}

// The results of a run that fails are deleted, because its error does not name them.
func TestStreamFailureKeepsNothing(t *testing.T) {
	store := &deletes{}
	opts := options(func(ctx context.Context, req execution.Request) (*execution.Result, error) {
		req.Started()
		if _, err := req.Keep(ctx, "a", strings.NewReader("a")); err != nil {
			return nil, err
		}
		return nil, errors.New("too bad")
	})
	opts.Files = store
	a := serve(httpapi.NewHandler(opts), request(http.MethodPost, streamPath, `{"code": ""}`))
	if !strings.Contains(a.body, "event: error") || !slices.Equal(store.ids, []string{"id of a"}) {
		t.Errorf("%s; %q were deleted", a.body, store.ids)
	}
}

// deletes records what is deleted.
type deletes struct {
	noFiles
	ids []string
}

func (d *deletes) Delete(_ context.Context, id string) error {
	d.ids = append(d.ids, id)
	return nil
}

// A panic before the start is an ordinary answer.
func TestStreamPanicBeforeTheStart(t *testing.T) {
	log, text := newLog()
	opts := options(func(context.Context, execution.Request) (*execution.Result, error) { panic("secret") })
	opts.Log = log
	a := serve(httpapi.NewHandler(opts), request(http.MethodPost, streamPath, `{"code": ""}`))
	if a.status != http.StatusInternalServerError || strings.Contains(a.body, "secret") || !strings.Contains(text.String(), "secret") {
		t.Errorf("%d %s, in the log %s", a.status, a.body, text)
	}
}

// A client that leaves ends its run.
func TestStreamClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		conn, _, in := dialStream(t, func(ctx context.Context, req execution.Request) (*execution.Result, error) {
			req.Started()
			req.Output(execution.Stdout, "x")
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		})
		if got := nextEvent(t, in); got != outputs("stdout", "x") {
			t.Errorf("the event is %s", got)
		}
		_ = conn.Close()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// A client that does not read does not delay its program. Its output waits in order, and
// its connection is closed in the end.
func TestStreamSlowClient(t *testing.T) {
	const lines = 20_000
	executor := func(ran chan<- time.Duration) execute {
		return func(_ context.Context, req execution.Request) (*execution.Result, error) {
			began := time.Now()
			req.Started()
			var out, err strings.Builder
			for i := range lines {
				line := fmt.Sprintln(i)
				req.Output(execution.Stdout, line)
				req.Output(execution.Stderr, line)
				out.WriteString(line)
				err.WriteString(line)
			}
			ran <- time.Since(began)
			return &execution.Result{Stdout: out.String(), Stderr: err.String(), ExitCode: new(int)}, nil
		}
	}
	for name, wait := range map[string]time.Duration{"reads late": time.Minute, "never reads": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ran := make(chan time.Duration, 1)
				_, _, in := dialStream(t, executor(ran))
				if took := <-ran; took != 0 {
					t.Errorf("the program was held up for %v", took)
				}
				time.Sleep(wait)
				text, err := io.ReadAll(in)
				if wait > 2*time.Minute {
					if err == nil {
						t.Error("the connection was kept")
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				out, stderr := joined(t, string(text))
				if out != stderr || strings.Count(out, "\n") != lines || !strings.HasSuffix(out, fmt.Sprintln(lines-1)) {
					t.Errorf("%d and %d bytes came", len(out), len(stderr))
				}
			})
		})
	}
}

// joined concatenates the outputs of a stream.
func joined(t *testing.T, text string) (stdout, stderr string) {
	t.Helper()
	var got [2]strings.Builder
	for event := range strings.SplitSeq(text, "\n\n") {
		data, ok := strings.CutPrefix(event, "event: output\ndata: ")
		if !ok {
			continue
		}
		var output struct{ Stream, Data string }
		if err := json.Unmarshal([]byte(data), &output); err != nil {
			t.Fatal(err)
		}
		stream := 0
		if output.Stream == "stderr" {
			stream = 1
		}
		got[stream].WriteString(output.Data)
	}
	return got[0].String(), got[1].String()
}
