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
	"os/exec"
	"slices"
	"sync"
	"time"
)

// mcpVersion is the revision of the protocol that most clients speak.
const mcpVersion = "2025-06-18"

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
	return timing{took: took}, answer.check(p)
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
	cmd   *exec.Cmd
	group group
	in    io.WriteCloser
	out   io.Reader

	mu      sync.Mutex
	ids     int
	waiting map[int]chan mcpAnswer
	ended   chan struct{} // closed when the server says nothing more
}

// openPipe starts a server and waits until it has made one call.
func (l *launcher) openPipe(ctx context.Context, first program) (*mcpPipe, error) {
	p := &mcpPipe{waiting: make(map[int]chan mcpAnswer), ended: make(chan struct{})}
	var err error
	if p.cmd, p.group, err = l.command(ctx, l.binary, "stdio"); err != nil {
		return nil, err
	}
	if err := p.start(l); err != nil {
		return nil, errors.Join(err, p.group.remove())
	}
	go p.listen(p.out)
	_, err = p.ask(ctx, func(int) []byte { return mcpGreeting() })
	if err == nil {
		_, err = p.run(ctx, first)
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *mcpPipe) start(l *launcher) (err error) {
	p.cmd.Env = append(slices.Clip(l.environment), "LOG_LEVEL=warn", "LOG_FORMAT=plain")
	p.cmd.Stderr = l.progress
	if p.out, err = p.cmd.StdoutPipe(); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	return nil
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
	return timing{took: took}, answer.check(program)
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
	err := p.cmd.Wait()
	if err != nil {
		err = fmt.Errorf("pipe: the server did not end well: %w", err)
	}
	return errors.Join(err, p.group.remove())
}
