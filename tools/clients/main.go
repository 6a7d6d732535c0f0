// Command clients is a client of the official Go SDK, for the tests: it walks
// through the steps that they give it, and prints what came of each, as JSON.
// It has a module of its own, so that the server's needs no second library of
// the protocol.
//
//	clients stdio|http|sse BINARY|URL STEPS
//
// ERA=legacy has it do the handshake of older revisions of the protocol.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// step is one thing to do: list the tools, call ours, or read the first file
// that the last call linked to.
type step struct {
	List, Read bool
	Call       map[string]any // arguments
	CancelAt   int            // call it off at that many notifications of progress
}

// outcome is what came of a step.
type outcome struct {
	Tools     []string   `json:"tools,omitempty"`
	Text      string     `json:"text,omitempty"`
	IsError   bool       `json:"isError,omitempty"`
	Links     []string   `json:"links,omitempty"`
	Progress  []progress `json:"progress,omitempty"`
	Cancelled bool       `json:"cancelled,omitempty"`
	MS        int64      `json:"ms"`
}

type progress struct {
	Progress float64 `json:"progress"`
	Message  string  `json:"message,omitempty"`
}

func run(ctx context.Context, transport, target, steps string) error {
	var todo []step
	if err := json.Unmarshal([]byte(steps), &todo); err != nil {
		return err
	}
	w := &walker{}
	client := mcp.NewClient(&mcp.Implementation{Name: "go-sdk", Version: "1"}, &mcp.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) { w.hear(r.Params) },
	})
	options := &mcp.ClientSessionOptions{}
	if os.Getenv("ERA") == "legacy" {
		options.ProtocolVersion = "2025-11-25"
	}
	session, err := client.Connect(ctx, connection(ctx, transport, target), options)
	if err != nil {
		return err
	}
	w.session = session
	outcomes := make([]outcome, len(todo))
	for i, s := range todo {
		began := time.Now()
		if outcomes[i], err = w.do(ctx, s); err != nil {
			return errors.Join(err, session.Close())
		}
		outcomes[i].MS = time.Since(began).Milliseconds()
	}
	return errors.Join(json.NewEncoder(os.Stdout).Encode(outcomes), session.Close())
}

func connection(ctx context.Context, transport, target string) mcp.Transport {
	switch transport {
	case "stdio":
		return &mcp.CommandTransport{Command: exec.CommandContext(ctx, target, "stdio")} //nolint:gosec // the tests name the binary
	case "http":
		return &mcp.StreamableClientTransport{Endpoint: target + "/mcp"}
	}
	return &mcp.SSEClientTransport{Endpoint: target + "/sse"}
}

type walker struct {
	session *mcp.ClientSession
	links   []string // of the last call

	mu       sync.Mutex
	heard    []progress // of the call under way
	cancelAt int
	cancel   context.CancelFunc
}

func (w *walker) hear(p *mcp.ProgressNotificationParams) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard = append(w.heard, progress{p.Progress, p.Message})
	if len(w.heard) == w.cancelAt {
		w.cancel()
	}
}

func (w *walker) do(ctx context.Context, s step) (outcome, error) {
	switch {
	case s.List:
		return w.list(ctx)
	case s.Read:
		return w.read(ctx)
	}
	return w.call(ctx, s)
}

func (w *walker) list(ctx context.Context) (out outcome, _ error) {
	result, err := w.session.ListTools(ctx, nil)
	if err != nil {
		return out, err
	}
	for _, tool := range result.Tools {
		out.Tools = append(out.Tools, tool.Name)
	}
	return out, nil
}

func (w *walker) read(ctx context.Context) (out outcome, _ error) {
	if len(w.links) == 0 {
		return out, errors.New("the last call linked to nothing")
	}
	result, err := w.session.ReadResource(ctx, &mcp.ReadResourceParams{URI: w.links[0]})
	if err != nil {
		return out, err
	}
	for _, contents := range result.Contents {
		out.Text += contents.Text + string(contents.Blob)
	}
	return out, nil
}

func (w *walker) call(ctx context.Context, s step) (out outcome, _ error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	w.heard, w.cancelAt, w.cancel = nil, s.CancelAt, cancel
	w.mu.Unlock()
	params := &mcp.CallToolParams{Name: "execute_python", Arguments: s.Call}
	params.SetProgressToken("a token")
	result, err := w.session.CallTool(ctx, params)
	w.mu.Lock()
	out.Progress = w.heard
	w.mu.Unlock()
	if ctx.Err() != nil {
		out.Cancelled = true
		return out, nil
	}
	if err != nil {
		return out, err
	}
	var text strings.Builder
	for _, content := range result.Content {
		switch c := content.(type) {
		case *mcp.TextContent:
			text.WriteString(c.Text)
		case *mcp.ResourceLink:
			out.Links = append(out.Links, c.URI)
		}
	}
	out.Text, out.IsError, w.links = text.String(), result.IsError, out.Links
	return out, nil
}
