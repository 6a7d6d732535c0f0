package integration

import (
	"context"
	"encoding/base64"
	"errors"
	"sync"
	"testing"
	"time"

	mcpclient "github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	mcpsdk "github.com/mark3labs/mcp-go/mcp"
)

// goWalker is mcp-go's client.
type goWalker struct {
	client *mcpclient.Client
	links  []string // of the last call

	mu       sync.Mutex
	heard    []progress // of the call under way
	cancelAt int
	cancel   context.CancelFunc
}

func walkMCPGo(options ...mcpclient.ClientOption) func(*testing.T, string, string, []mcpStep) ([]mcpReply, error) {
	return func(t *testing.T, transport, target string, steps []mcpStep) ([]mcpReply, error) {
		t.Helper()
		connection, err := dial(transport, target)
		if err != nil {
			return nil, err
		}
		w := &goWalker{client: mcpclient.NewClient(connection, options...)}
		w.client.OnNotification(w.hear)
		connect(t, w.client, nil)
		replies := make([]mcpReply, len(steps))
		for i, s := range steps {
			began := time.Now()
			if replies[i], err = w.do(t.Context(), s); err != nil {
				return nil, err
			}
			replies[i].MS = time.Since(began).Milliseconds()
		}
		return replies, nil
	}
}

func dial(kind, target string) (transport.Interface, error) {
	switch kind {
	case "stdio":
		return transport.NewStdio(target, stdioSettings(), "stdio"), nil
	case "http":
		return transport.NewStreamableHTTP(target + "/mcp")
	}
	return transport.NewSSE(target + "/sse")
}

func (w *goWalker) hear(n mcpsdk.JSONRPCNotification) {
	if n.Method != "notifications/progress" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	count, _ := n.Params.AdditionalFields["progress"].(float64)
	message, _ := n.Params.AdditionalFields["message"].(string)
	w.heard = append(w.heard, progress{count, message})
	if len(w.heard) == w.cancelAt {
		w.cancel()
	}
}

func (w *goWalker) do(ctx context.Context, s mcpStep) (mcpReply, error) {
	switch {
	case s.List:
		return w.list(ctx)
	case s.Read:
		return w.read(ctx)
	}
	return w.call(ctx, s)
}

func (w *goWalker) list(ctx context.Context) (out mcpReply, _ error) {
	result, err := w.client.ListTools(ctx, mcpsdk.ListToolsRequest{})
	if err != nil {
		return out, err
	}
	for _, tool := range result.Tools {
		out.Tools = append(out.Tools, tool.Name)
	}
	return out, nil
}

func (w *goWalker) read(ctx context.Context) (out mcpReply, _ error) {
	if len(w.links) == 0 {
		return out, errors.New("the last call linked to nothing")
	}
	request := mcpsdk.ReadResourceRequest{}
	request.Params.URI = w.links[0]
	result, err := w.client.ReadResource(ctx, request)
	if err != nil {
		return out, err
	}
	for _, contents := range result.Contents {
		switch c := contents.(type) {
		case mcpsdk.TextResourceContents:
			out.Text += c.Text
		case mcpsdk.BlobResourceContents:
			data, err := base64.StdEncoding.DecodeString(c.Blob)
			if err != nil {
				return out, err
			}
			out.Text += string(data)
		}
	}
	return out, nil
}

func (w *goWalker) call(ctx context.Context, s mcpStep) (out mcpReply, _ error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	w.heard, w.cancelAt, w.cancel = nil, s.CancelAt, cancel
	w.mu.Unlock()
	request := mcpsdk.CallToolRequest{}
	request.Params.Name, request.Params.Arguments = "execute_python", s.Call
	request.Params.Meta = &mcpsdk.Meta{ProgressToken: "a token"}
	result, err := w.client.CallTool(ctx, request)
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
	for _, content := range result.Content {
		switch c := content.(type) {
		case mcpsdk.TextContent:
			out.Text += c.Text
		case mcpsdk.ResourceLink:
			out.Links = append(out.Links, c.URI)
		}
	}
	out.IsError, w.links = result.IsError, out.Links
	return out, nil
}
