package mcp

import (
	"context"
	"time"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

// handler answers a call of a tool.
type handler func(ctx context.Context, call mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error)

// tool is a tool with what answers it.
type tool struct {
	mcpsdk.Tool
	handle handler
	// describe, if not nil, makes the description of the moment.
	describe func() string
}

// tools are all tools, as they are known when the server starts.
func (s *Server) tools() []tool {
	return []tool{
		{s.pythonTool(), s.executePython, s.describePython},
		{s.bashTool(), s.runBash, s.describeBash},
		{s.readTool(), s.readFile, nil},
		{s.writeTool(), s.writeFile, nil},
		{s.endTool(), s.endSession, nil},
	}
}

// addTools adds the tools to the library's server.
func (s *Server) addTools() {
	for _, t := range s.tools() {
		if t.describe != nil {
			t.Description = t.describe()
		}
		s.server.AddTool(t.Tool, s.guarded(t.handle))
	}
}

// redescribe gives tools the descriptions of the moment.
func (s *Server) redescribe(listed []mcpsdk.Tool) {
	for _, t := range s.tools() {
		for i := range listed {
			if t.describe != nil && listed[i].Name == t.Name {
				listed[i].Description = t.describe()
			}
		}
	}
}

// sandboxed are the annotations that all tools share, and the openness of the
// sandbox.
func (s *Server) annotated(title string, readOnly, destructive, idempotent bool) mcpsdk.ToolOption {
	open := s.opts.Settings.Network != "none"
	return mcpsdk.WithToolAnnotation(mcpsdk.ToolAnnotation{
		Title: title, ReadOnlyHint: &readOnly, DestructiveHint: &destructive, IdempotentHint: &idempotent, OpenWorldHint: &open,
	})
}

func (s *Server) timeoutArgument(what string) mcpsdk.ToolOption {
	return mcpsdk.WithInteger("timeout_ms", mcpsdk.Min(1), mcpsdk.Max(float64(s.opts.Limits.MaxTimeout.Milliseconds())),
		mcpsdk.DefaultNumber(float64(s.defaultTimeout().Milliseconds())),
		mcpsdk.Description("How long the "+what+" may run, in milliseconds."))
}

const (
	aboutSession = "The session, as execute_python has named it."
	aboutPath    = "The file's path, relative to the working directory."
)

func (s *Server) pythonTool() mcpsdk.Tool {
	return mcpsdk.NewTool("execute_python",
		s.annotated("Run Python", false, false, false), // what it changes is in the sandbox alone
		mcpsdk.WithString("code", mcpsdk.Required(), mcpsdk.Description("Python source text. Print what you want to see.")),
		mcpsdk.WithString("session", mcpsdk.Description(
			`Leave it out for a fresh sandbox. "new" begins a session that keeps variables and files; pass the session that its answer names to go on.`)),
		mcpsdk.WithArray("files", mcpsdk.Description("Files to put into the working directory first."), mcpsdk.Items(map[string]any{
			"type": "object",
			"properties": map[string]any{
				"path":           map[string]any{"type": "string", "description": aboutPath},
				"content":        map[string]any{"type": "string", "description": "The file's text."},
				"content_base64": map[string]any{"type": "string", "description": "The file's bytes in base64, instead of content."},
				"file_id":        map[string]any{"type": "string", "description": "A file that an earlier call has returned, instead of content."},
			},
			"required": []string{"path"}, "additionalProperties": false,
		})),
		s.timeoutArgument("program"),
		mcpsdk.WithString("stdin", mcpsdk.Description("What the program reads on its standard input.")),
		mcpsdk.WithSchemaAdditionalProperties(false),
	)
}

func (s *Server) bashTool() mcpsdk.Tool {
	return mcpsdk.NewTool("run_bash",
		s.annotated("Run a command", false, false, false),
		mcpsdk.WithString("session", mcpsdk.Required(), mcpsdk.Description(
			`The session, as an earlier call has named it, or "new" to begin one.`)),
		mcpsdk.WithString("command", mcpsdk.Required(), mcpsdk.Description("What bash runs. Its standard input is empty.")),
		s.timeoutArgument("command"),
		mcpsdk.WithSchemaAdditionalProperties(false),
	)
}

func (s *Server) readTool() mcpsdk.Tool {
	return mcpsdk.NewTool("read_file",
		mcpsdk.WithDescription("Reads a file of a session's working directory. Text is cut like output; pictures are shown."),
		s.annotated("Read a file", true, false, true),
		mcpsdk.WithString("session", mcpsdk.Required(), mcpsdk.Description(aboutSession)),
		mcpsdk.WithString("path", mcpsdk.Required(), mcpsdk.Description(aboutPath)),
		mcpsdk.WithString("encoding", mcpsdk.Enum("text", "base64"), mcpsdk.DefaultString("text"),
			mcpsdk.Description("base64 gives the bytes of a file that is no text.")),
		mcpsdk.WithSchemaAdditionalProperties(false),
	)
}

func (s *Server) writeTool() mcpsdk.Tool {
	return mcpsdk.NewTool("write_file",
		mcpsdk.WithDescription("Writes a file to a session's working directory, in place of one that is there. Folders are made as needed. Give either content or content_base64."),
		s.annotated("Write a file", false, true, true),
		mcpsdk.WithString("session", mcpsdk.Required(), mcpsdk.Description(aboutSession)),
		mcpsdk.WithString("path", mcpsdk.Required(), mcpsdk.Description(aboutPath)),
		mcpsdk.WithString("content", mcpsdk.Description("The file's text.")),
		mcpsdk.WithString("content_base64", mcpsdk.Description("The file's bytes in base64.")),
		mcpsdk.WithSchemaAdditionalProperties(false),
	)
}

func (s *Server) endTool() mcpsdk.Tool {
	return mcpsdk.NewTool("end_session",
		mcpsdk.WithDescription("Ends a session, with its variables and files, so that it takes no more memory. Sessions end by themselves too, at their time."),
		s.annotated("End a session", false, true, true),
		mcpsdk.WithString("session", mcpsdk.Required(), mcpsdk.Description(aboutSession)),
		mcpsdk.WithSchemaAdditionalProperties(false),
	)
}

// hooks have lists of tools wait for what is being learned, and describe it.
func (s *Server) hooks() *mcpserver.Hooks {
	hooks := new(mcpserver.Hooks)
	s.mapNotFound(hooks)
	transport.ForgetClients(hooks)
	hooks.AddAfterListTools(func(ctx context.Context, _ any, _ *mcpsdk.ListToolsRequest, result *mcpsdk.ListToolsResult) {
		s.awaitPrepared(ctx)
		if s.facts.Load() == nil {
			s.listed.Store(true)
		}
		s.redescribe(result.Tools)
	})
	return hooks
}

// defaultTimeout is how long a call may run that does not say: more than in the
// HTTP API, since models seldom say, and a program that hangs uses little.
func (s *Server) defaultTimeout() time.Duration {
	return min(execution.DefaultCommandTimeout, s.opts.Limits.MaxTimeout)
}
