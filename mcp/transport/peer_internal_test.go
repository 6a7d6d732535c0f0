package transport

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

const initialize = `{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}}`

// toolCall is a call of a tool.
func toolCall(id int, name string) string {
	return fmt.Sprintf(`{"jsonrpc": "2.0", "id": %d, "method": "tools/call", "params": {"name": %q, "arguments": {}}}`, id, name)
}

// A notification that a call sends precedes the answer to the call, although the library queues
// the two apart.
func TestNotificationsPrecedeAnswers(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	server := mcpserver.NewMCPServer("test", "1", mcpserver.WithToolCapabilities(true), mcpserver.WithLogger(log))
	server.AddTool(mcpsdk.NewTool("notify"), func(ctx context.Context, _ mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
		return mcpsdk.NewToolResultText("done"), Notify(ctx, server, "notifications/progress", nil)
	})
	in, client := io.Pipe()
	out, serverOut := io.Pipe()
	over := make(chan error)
	go func() {
		over <- New(Options{Server: server, Parallel: 5, Log: log}).ServeStdio(t.Context(), in, serverOut)
	}()
	lines := bufio.NewScanner(out)
	converse := func(line, want string) {
		if _, err := io.WriteString(client, line+"\n"); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() || !strings.Contains(lines.Text(), want) {
			t.Fatalf("%s %v", lines.Text(), lines.Err())
		}
	}
	converse(initialize, "serverInfo")
	if _, err := io.WriteString(client, `{"jsonrpc": "2.0", "method": "notifications/initialized"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	for id := range 100 {
		converse(toolCall(id, "notify"), "notifications/progress")
		if !lines.Scan() || !strings.Contains(lines.Text(), "done") {
			t.Fatalf("%s %v", lines.Text(), lines.Err())
		}
	}
	_ = client.Close()
	if err := <-over; err != nil {
		t.Error(err)
	}
}
