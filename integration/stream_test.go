package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// event is one event of /v1/execute/stream.
type event struct {
	name, data string
}

// openStream asks for a stream, which ends with ctx or with the test.
func openStream(ctx context.Context, t *testing.T, body request) *bufio.Reader {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, shared.server.url+"/v1/execute/stream", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || kind != "text/event-stream" {
		t.Fatalf("status %d, %s", resp.StatusCode, kind)
	}
	return bufio.NewReader(resp.Body)
}

// nextEvent reads one event; it gives an error at the stream's end.
func nextEvent(in *bufio.Reader) (event, error) {
	var e event
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return e, err
		}
		line = strings.TrimSuffix(line, "\n")
		switch name, value, _ := strings.Cut(line, ": "); {
		case name == "event":
			e.name = value
		case name == "data":
			e.data = value
		case line == "" && e.name != "":
			return e, nil
		}
	}
}

// Output arrives while its program runs, which ends when its reader leaves.
func TestStreamWhileTheProgramRuns(t *testing.T) {
	const sleep = 50 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	over := func() int { return strings.Count(shared.server.logged(), `"path":"/v1/execute/stream"`) }
	before, began := over(), time.Now()
	in := openStream(ctx, t, request{
		"code":       fmt.Sprintf("import time\nprint('here')\ntime.sleep(%d)", sleep/time.Second),
		"timeout_ms": (sleep + 5*time.Second).Milliseconds(),
	})
	e, err := nextEvent(in)
	if err != nil || e.name != "output" || !strings.HasPrefix(e.data, `{"stream":"stdout","data":"here`) {
		t.Fatalf("%v, %v", e, err)
	}
	cancel()
	if !poll(func() bool { return over() > before }) || time.Since(began) >= sleep {
		t.Errorf("the program was left to run for %v", time.Since(began))
	}
}

// A stream says what the plain answer says, a cut and bytes that are no text
// included.
func TestStreamEqualsAnswer(t *testing.T) {
	body := request{"code": strings.Join([]string{
		"import os, sys",
		"for part in (b'a\\xe2', b'\\x82', b'\\xac\\xff', b'\\xf0\\x9f'):",
		"    os.write(1, part)",
		"os.write(2, '€'.encode() * 2_000_000)",
		"open('made', 'w').write('x')",
		"sys.exit(3)",
	}, "\n")}
	plain := mustRun(t, shared.server, body)
	in := openStream(t.Context(), t, body)
	var texts struct{ stdout, stderr strings.Builder }
	var last event
	for {
		e, err := nextEvent(in)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = e
		if e.name != "output" {
			continue
		}
		var output struct{ Stream, Data string }
		if err := json.Unmarshal([]byte(e.data), &output); err != nil {
			t.Fatal(err)
		}
		if output.Stream == "stdout" {
			texts.stdout.WriteString(output.Data)
		} else {
			texts.stderr.WriteString(output.Data)
		}
	}
	if texts.stdout.String() != plain.Stdout || texts.stderr.String() != plain.Stderr || plain.Stdout == "" || plain.Stderr == "" {
		t.Errorf("the stream has %q and %d bytes of stderr, the answer %q and %d",
			texts.stdout.String(), texts.stderr.Len(), plain.Stdout, len(plain.Stderr))
	}
	var result answer
	if err := json.Unmarshal([]byte(last.data), &result); err != nil || last.name != "result" {
		t.Fatalf("the last event is %v: %v", last, err)
	}
	if result.exitCode() != "3" || result.paths() != "made" || result.End.Reason != plain.End.Reason {
		t.Errorf("the result is %+v", result)
	}
}
