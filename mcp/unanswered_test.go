package mcp_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

// lasting are runs that last until they are cancelled, except those of the code "short".
type lasting struct{ *runs }

func (l lasting) Execute(ctx context.Context, req execution.Request) (*execution.Result, error) {
	if req.Code == "short" {
		return exited(0), nil
	}
	return l.runs.Execute(ctx, req)
}

// lastingOptions allow one call at a time: the next begins when the one before it has been answered,
// or when it is clear that it will not be.
func lastingOptions(r *runs) mcp.Options {
	opts := options(nil)
	opts.Executor, opts.Parallel = lasting{r}, 1
	return opts
}

// codeCall is a call that runs code. The id is JSON.
func codeCall(id, code string) string {
	return fmt.Sprintf(`{"jsonrpc": "2.0", "id": %s, "method": "tools/call", "params": {"name": "execute_python", "arguments": {"code": %q}}}`, id, code)
}

// cancellation cancels a request. The id is JSON.
func cancellation(id string) string {
	return `{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": ` + id + `, "reason": "user"}}`
}

// cancelledIDs are ids of calls, with others that do not name the same call.
var cancelledIDs = []struct{ id, others string }{
	{`7`, `"7" 70 null [7] {} true`},
	{`"7"`, `7 "70" "" null`},
	{`0`, `"0" "" null false`},
	{`9007199254740991`, `9007199254740990`},
}

// A call that was cancelled is not answered, over each transport, while it runs and while it waits.
// Cancellations of other ids, unknown or answered, change nothing.
func TestCancelledCallsAreNotAnswered(t *testing.T) {
	for _, test := range cancelledIDs {
		t.Run("stdio "+test.id, func(t *testing.T) {
			r := newRuns()
			c := connect(t, lastingOptions(r))
			c.ids = 100
			conversation(t, r, test.id, test.others, c.write, func() string {
				if !c.out.Scan() {
					t.Fatal(c.out.Err())
				}
				return c.out.Text()
			})
		})
		t.Run("SSE "+test.id, func(t *testing.T) {
			r := newRuns()
			server, _ := newHTTP(t, lastingOptions(r))
			stream, endpoint := openSSE(t, server)
			say := func(message string) {
				if status, _, text := post(t, server.Client(), server.URL+endpoint, "", message); status != http.StatusAccepted {
					t.Fatalf("%d %s", status, text)
				}
			}
			conversation(t, r, test.id, test.others, say, func() string {
				_, data := stream.next(t)
				return data
			})
		})
	}
}

// conversation cancels a call that runs and one that waits. The only answers are those to calls that
// were not cancelled.
func conversation(t *testing.T, r *runs, id, others string, say func(string), hear func() string) {
	t.Helper()
	expect := func(id string) {
		t.Helper()
		if got := hear(); !strings.Contains(got, `"id":`+id+`,`) || !strings.Contains(got, `"result"`) {
			t.Fatalf("%s was cancelled; instead of the answer to %s: %s", id, id, got)
		}
	}
	say(codeCall(id, "running"))
	<-r.begun
	for other := range strings.FieldsSeq(others) {
		say(cancellation(other))
	}
	say(codeCall(`"waiting"`, "waiting"))
	say(codeCall(`"short"`, "short"))
	say(cancellation(`"waiting"`))
	if len(r.ended) > 0 {
		t.Fatal("another id cancelled the call")
	}
	say(cancellation(id))
	<-r.ended
	expect(`"short"`)
	say(cancellation(`"short"`)) // it is over
	say(cancellation(id))
	say(codeCall(id, "short")) // the id is free again
	expect(id)
	if len(r.begun) > 0 {
		t.Errorf("%s ran", <-r.begun)
	}
}

// running is a POST that is being answered.
type running struct {
	*httptest.ResponseRecorder
	over chan struct{}
}

// postLater begins a POST to the streamable transport.
func postLater(t *testing.T, server *httptest.Server, session, accept, body string) running {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, transport.StreamablePath, strings.NewReader(body))
	r.Header.Set("Mcp-Session-Id", session)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", accept)
	p := running{httptest.NewRecorder(), make(chan struct{})}
	go func() {
		defer close(p.over)
		server.Config.Handler.ServeHTTP(p, r)
	}()
	return p
}

// The POST of a call that was cancelled ends without a message: its stream has no events, and a
// client that accepts none gets 202 without a body.
func TestCancelledCallEndsItsPost(t *testing.T) {
	for accept, want := range map[string]struct {
		status int
		kind   string
	}{
		"application/json, text/event-stream": {http.StatusOK, "text/event-stream"},
		"application/json":                    {http.StatusAccepted, ""},
	} {
		for _, test := range cancelledIDs {
			t.Run(accept+" "+test.id, func(t *testing.T) {
				r := newRuns()
				server, _ := newHTTP(t, lastingOptions(r))
				_, session, _ := post(t, server.Client(), server.URL+transport.StreamablePath, "", hello)
				call := postLater(t, server, session, accept, codeCall(test.id, "running"))
				<-r.begun
				for other := range strings.FieldsSeq(test.others) {
					post(t, server.Client(), server.URL+transport.StreamablePath, session, cancellation(other))
				}
				if r.fault() != nil {
					t.Fatal("another id cancelled the call")
				}
				if status, _, text := post(t, server.Client(), server.URL+transport.StreamablePath, session, cancellation(test.id)); status != http.StatusAccepted {
					t.Fatalf("%d %s", status, text)
				}
				<-call.over
				if kind := call.Header().Get("Content-Type"); call.Code != want.status || kind != want.kind || call.Body.Len() > 0 {
					t.Errorf("%d %q %s", call.Code, kind, call.Body)
				}
				if len(r.ended) != 1 {
					t.Error("the call still ran")
				}
				if _, _, text := post(t, server.Client(), server.URL+transport.StreamablePath, session, codeCall(test.id, "short")); !strings.Contains(text, `"result"`) {
					t.Errorf("the next call with that id: %s", text)
				}
			})
		}
	}
}

// A cancellation of an unknown protocol session is refused.
func TestCancelInUnknownSession(t *testing.T) {
	server, _ := newHTTP(t, options(nil))
	status, _, text := post(t, server.Client(), server.URL+transport.StreamablePath, "bogus", cancellation("7"))
	if status != http.StatusNotFound {
		t.Errorf("%d %s", status, text)
	}
}

// A call that has sent progress ends its stream after it is cancelled, without an answer.
func TestCancelAfterProgress(t *testing.T) {
	r := newRuns()
	server, _ := newHTTP(t, optionsOf(r))
	_, session, _ := post(t, server.Client(), server.URL+transport.StreamablePath, "", hello)
	body := strings.Replace(codeCall("7", "running"), `"name"`, `"_meta": {"progressToken": "p"}, "name"`, 1)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+transport.StreamablePath, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{"Mcp-Session-Id": {session}, "Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}}
	resp, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && !strings.Contains(lines.Text(), "notifications/progress") { //nolint:revive // it waits
	}
	post(t, server.Client(), server.URL+transport.StreamablePath, session, cancellation("7"))
	for lines.Scan() {
		if strings.Contains(lines.Text(), `"id"`) {
			t.Errorf("an answer: %s", lines.Text())
		}
	}
	if lines.Err() != nil || len(r.ended) != 1 {
		t.Errorf("%v, %d calls ended", lines.Err(), len(r.ended))
	}
}

// Requests of a batch can be cancelled, also those that wait.
func TestCancelInBatch(t *testing.T) {
	r := newRuns()
	server, _ := newHTTP(t, lastingOptions(r))
	url := server.URL + transport.StreamablePath
	_, session, _ := post(t, server.Client(), url, "", hello)
	batch := strings.Join([]string{
		codeCall("1", "never"), cancellation("1"), codeCall("1", "short"),
		codeCall("2", "running"), codeCall("3", "waiting"), codeCall(`"3"`, "short"),
	}, ",")
	call := postLater(t, server, session, "application/json, text/event-stream", "["+batch+"]")
	<-r.begun
	post(t, server.Client(), url, session, cancellation("3"))
	post(t, server.Client(), url, session, cancellation("2"))
	<-call.over
	var ids []string
	for line := range strings.Lines(call.Body.String()) {
		if data, isData := strings.CutPrefix(line, "data: "); isData {
			_, id, _ := strings.Cut(data, `"id":`)
			ids = append(ids, id[:strings.IndexByte(id, ',')])
		}
	}
	if got := strings.Join(ids, " "); got != `1 "3"` || len(r.begun) > 0 || len(r.ended) != 1 {
		t.Errorf("answers: %s; %d calls began, %d ended; %s", got, len(r.begun), len(r.ended), call.Body)
	}
}

// A batch over stdio can cancel its own requests.
func TestCancelInBatchOverStdio(t *testing.T) {
	c := connect(t, lastingOptions(newRuns()))
	batch := "[" + strings.Join([]string{codeCall("7", "running"), cancellation("7"), codeCall("8", "short")}, ",") + "]"
	c.write(batch)
	if m := c.read(); m.ID == nil || *m.ID != 8 {
		t.Errorf("%+v", m)
	}
}
