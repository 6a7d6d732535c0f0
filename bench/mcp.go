package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"time"
)

// mcpClients is how many calls are under way at once in the sustained part.
const mcpClients = 8

// mcpVersion is the revision of the protocol that most clients speak.
const mcpVersion = "2025-06-18"

// mcp measures what MCP adds to a plain run: over streamable HTTP on the same
// server, and over one stdio pipe to a server of its own.
func (m *measurement) mcp(ctx context.Context) (results *mcpResult, err error) {
	overHTTP := &mcpHTTP{ours: m.ours}
	if err := overHTTP.greet(ctx); err != nil {
		return nil, err
	}
	pipe, err := openPipe(ctx, m.opts, m.engine.host(), m.server.binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pipe.close()) }()
	other := *m
	other.sides = nil
	for _, s := range []contender{{name: "run", side: m.ours}, {name: "MCP over HTTP", side: overHTTP}, {name: "MCP over stdio", side: pipe}} {
		s.pause, s.calls = m.opts.pause, m.opts.mcp
		other.sides = append(other.sides, s)
	}
	m.say("MCP: %d calls each", m.opts.mcp)
	results = new(mcpResult)
	if results.Paced, err = other.paced(ctx); err != nil {
		return nil, err
	}
	results.Sustained.Clients = mcpClients
	if results.Sustained.Sides, err = other.sustained(ctx, mcpClients); err != nil {
		return nil, err
	}
	results.Cancels, err = m.cancels(ctx, pipe, overHTTP)
	return results, err
}

// mcpResult is what MCP adds, with one client and with several, and how long a
// run goes on that is called off.
type mcpResult struct {
	Paced     []sideResult    `json:"paced"`
	Sustained sustainedResult `json:"sustained"`
	Cancels   []sideResult    `json:"cancels"`
}

// mcpCall is the request for one run.
func mcpCall(id int, p program) []byte {
	data, _ := json.Marshal(map[string]any{ // it has nothing that could fail
		"jsonrpc": "2.0", "id": id, "method": "tools/call",
		"params": map[string]any{"name": "execute_python", "arguments": map[string]any{"code": p.code, "timeout_ms": runTime.Milliseconds()}},
	})
	return data
}

func mcpGreeting() []byte {
	return fmt.Appendf(nil, `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":%q,"capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}`, mcpVersion)
}

// mcpAnswer is the answer to a call.
type mcpAnswer struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Error  json.RawMessage `json:"error"`
	Result struct {
		Content []struct{ Text string } `json:"content"`
		IsError bool                    `json:"isError"`
	} `json:"result"`
}

func (a *mcpAnswer) check(p program) error {
	switch {
	case a.Error != nil:
		return fmt.Errorf("%w: %s", errWrong, a.Error)
	case len(a.Result.Content) != 1:
		return fmt.Errorf("%w: %+v", errWrong, a.Result)
	case a.Result.IsError: // no program of the bench fails: the server did not run it
		return &refusal{errors.New(a.Result.Content[0].Text)}
	}
	return p.check(0, a.Result.Content[0].Text, "")
}

// mcpHTTP calls the tool over streamable HTTP.
type mcpHTTP struct {
	ours    *ours
	session string
}

func (h *mcpHTTP) greet(ctx context.Context) error {
	_, header, err := h.send(ctx, mcpGreeting())
	if err != nil {
		return err
	}
	h.session = header.Get("Mcp-Session-Id")
	return nil
}

func (h *mcpHTTP) send(ctx context.Context, body []byte) ([]byte, http.Header, error) {
	header := http.Header{"Accept": {"application/json, text/event-stream"}}
	if h.session != "" {
		header.Set("Mcp-Session-Id", h.session)
		header.Set("Mcp-Protocol-Version", mcpVersion)
	}
	return h.ours.exchangeWith(ctx, http.MethodPost, "/mcp", body, header)
}

func (h *mcpHTTP) run(ctx context.Context, p program) (timing, error) {
	body := mcpCall(1, p)
	began := time.Now()
	data, _, err := h.send(ctx, body)
	took := time.Since(began)
	if err != nil {
		return timing{}, err
	}
	if _, event, isStream := bytes.Cut(data, []byte("data: ")); isStream {
		data = event
	}
	var answer mcpAnswer
	if err := json.Unmarshal(data, &answer); err != nil {
		return timing{}, fmt.Errorf("%w: %w: %.300q", errWrong, err, data)
	}
	return timing{answer: took, whole: took}, answer.check(p)
}

// begin begins a run that goes on until its request is closed.
func (h *mcpHTTP) begin(ctx context.Context, p program) (callOff func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { _, _, _ = h.send(ctx, mcpCall(1, p)) }() // it has no answer
	return cancel, nil
}

// mcpPipe calls the tool over the pipe to a server of its own. Calls may be made
// at once.
type mcpPipe struct {
	cmd *exec.Cmd
	in  io.WriteCloser

	mu      sync.Mutex
	ids     int
	waiting map[int]chan mcpAnswer
	ended   chan struct{} // closed when the server says nothing more
}

// openPipe starts a server and waits until it has made one call.
func openPipe(ctx context.Context, opts options, dockerHost, binary string) (*mcpPipe, error) {
	p := &mcpPipe{cmd: exec.CommandContext(ctx, binary, "stdio"), waiting: make(map[int]chan mcpAnswer), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "LOG_LEVEL=warn", "PYTHON_EXECUTOR_DOCKER_IMAGE="+opts.image, "DOCKER_HOST="+dockerHost)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	go p.listen(out)
	if _, err := p.ask(ctx, func(int) []byte { return mcpGreeting() }); err != nil {
		return nil, errors.Join(err, p.close())
	}
	_, err = p.run(ctx, opts.program)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *mcpPipe) listen(out io.Reader) {
	defer close(p.ended)
	for lines := json.NewDecoder(bufio.NewReader(out)); ; {
		var answer mcpAnswer
		if err := lines.Decode(&answer); err != nil {
			return
		}
		if answer.Method != "" {
			continue // a notification
		}
		p.mu.Lock()
		waiter := p.waiting[answer.ID]
		delete(p.waiting, answer.ID)
		p.mu.Unlock()
		if waiter != nil {
			waiter <- answer
		}
	}
}

// ask sends a request, made for the id that it is given, and waits for the
// answer.
func (p *mcpPipe) ask(ctx context.Context, request func(id int) []byte) (mcpAnswer, error) {
	answer := make(chan mcpAnswer, 1)
	p.mu.Lock()
	id := p.ids
	p.ids++
	p.waiting[id] = answer
	_, err := p.in.Write(append(request(id), '\n'))
	p.mu.Unlock()
	if err != nil {
		return mcpAnswer{}, fmt.Errorf("pipe: %w", err)
	}
	select {
	case a := <-answer:
		return a, nil
	case <-p.ended:
		return mcpAnswer{}, errors.New("pipe: the server has ended")
	case <-ctx.Done():
		return mcpAnswer{}, context.Cause(ctx)
	}
}

func (p *mcpPipe) run(ctx context.Context, program program) (timing, error) {
	began := time.Now()
	answer, err := p.ask(ctx, func(id int) []byte { return mcpCall(id, program) })
	took := time.Since(began)
	if err != nil {
		return timing{}, err
	}
	return timing{answer: took, whole: took}, answer.check(program)
}

// begin begins a run that goes on until it is called off.
func (p *mcpPipe) begin(_ context.Context, program program) (callOff func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := p.ids
	p.ids++
	if _, err := p.in.Write(append(mcpCall(id, program), '\n')); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		_, _ = fmt.Fprintf(p.in, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":%d}}\n", id)
	}, nil
}

// close lets the server end.
func (p *mcpPipe) close() error {
	_ = p.in.Close()
	<-p.ended
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("pipe: the server did not end well: %w", err)
	}
	return nil
}
