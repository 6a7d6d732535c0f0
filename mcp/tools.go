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

// tool is a tool with its handler.
type tool struct {
	mcpsdk.Tool
	handle handler
	// describe returns the current description. Nil means that it never changes.
	describe func() string
}

// tools returns all tools, without the descriptions that change.
func (s *Server) tools() []tool {
	tools := []tool{
		{s.pythonTool(), s.executePython, s.describePython},
		{s.bashTool(), s.runBash, s.describeBash},
		{s.readTool(), s.readFile, nil},
		{s.writeTool(), s.writeFile, nil},
		{s.listTool(), s.listFiles, nil},
		{s.endTool(), s.endSession, nil},
	}
	if s.opts.PythonAlias {
		alias := tool{s.pythonTool(), s.executePython, s.describePython}
		alias.Name = "python"
		tools = append(tools, alias)
	}
	return tools
}

// addTools adds the tools to the library's server.
func (s *Server) addTools() {
	for _, t := range s.tools() {
		if t.describe != nil {
			t.Description = t.describe()
		}
		s.server.AddTool(t.Tool, s.guarded(t))
	}
}

// redescribe updates the descriptions in a list of tools.
func (s *Server) redescribe(listed []mcpsdk.Tool) {
	for _, t := range s.tools() {
		for i := range listed {
			if t.describe != nil && listed[i].Name == t.Name {
				listed[i].Description = t.describe()
			}
		}
	}
}

// annotated returns a tool's annotations. Whether the tool reaches the outside depends on the
// sandbox's network.
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
	aboutSession = "The session's name, from an earlier answer."
	aboutPath    = "The file's path, relative to the working directory."
)

func (s *Server) pythonTool() mcpsdk.Tool {
	return mcpsdk.NewTool("execute_python",
		s.annotated("Run Python", false, false, false), // it changes nothing outside the sandbox
		mcpsdk.WithString("code", mcpsdk.Required(), mcpsdk.Description("Python source text. Print what you want to see.")),
		mcpsdk.WithString("session", mcpsdk.Description(
			`Omit it for a fresh sandbox. "new" starts a session that keeps variables and files: pass its name, which the answer contains, in later calls.`)),
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
		mcpsdk.WithArray("args", mcpsdk.Description("The program's arguments, sys.argv[1:]."), mcpsdk.WithStringItems()),
		s.envArgument(),
		mcpsdk.WithSchemaAdditionalProperties(false),
	)
}

func (s *Server) bashTool() mcpsdk.Tool {
	return mcpsdk.NewTool("run_bash",
		s.annotated("Run a command", false, false, false),
		mcpsdk.WithString("session", mcpsdk.Required(), mcpsdk.Description(
			`The session's name, from an earlier answer, or "new" to start one.`)),
		mcpsdk.WithString("command", mcpsdk.Required(), mcpsdk.Description("What bash runs. Its standard input is empty.")),
		s.timeoutArgument("command"),
		s.envArgument(),
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
			mcpsdk.Description("base64 returns the bytes of a file that is not text.")),
		mcpsdk.WithSchemaAdditionalProperties(false),
	)
}

func (s *Server) writeTool() mcpsdk.Tool {
	return mcpsdk.NewTool(writeFileTool,
		mcpsdk.WithDescription("Writes a file to a session's working directory, replacing an existing one. Folders are created as needed. Give either content or content_base64."),
		s.annotated("Write a file", false, true, true),
		mcpsdk.WithString("session", mcpsdk.Required(), mcpsdk.Description(aboutSession)),
		mcpsdk.WithString("path", mcpsdk.Required(), mcpsdk.Description(aboutPath)),
		mcpsdk.WithString("content", mcpsdk.Description("The file's text.")),
		mcpsdk.WithString("content_base64", mcpsdk.Description("The file's bytes in base64.")),
		mcpsdk.WithSchemaAdditionalProperties(false),
	)
}

func (s *Server) listTool() mcpsdk.Tool {
	return mcpsdk.NewTool("list_files",
		mcpsdk.WithDescription("Lists the files of a session's working directory with their sizes, also those in folders."),
		s.annotated("List files", true, false, true),
		mcpsdk.WithString("session", mcpsdk.Required(), mcpsdk.Description(aboutSession)),
		mcpsdk.WithString("path", mcpsdk.Description("A folder in the working directory, to list only what it contains.")),
		mcpsdk.WithSchemaAdditionalProperties(false),
	)
}

func (s *Server) endTool() mcpsdk.Tool {
	return mcpsdk.NewTool("end_session",
		mcpsdk.WithDescription("Ends a session and deletes its variables and files, which frees its memory. Sessions also end by themselves when their time is over."),
		s.annotated("End a session", false, true, true),
		mcpsdk.WithString("session", mcpsdk.Required(), mcpsdk.Description(aboutSession)),
		mcpsdk.WithSchemaAdditionalProperties(false),
	)
}

// hooks returns the hooks of the library's server. A list of tools waits for the facts about the
// sandbox, which the descriptions contain.
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

// defaultTimeout returns the timeout of calls without timeout_ms. It is longer than in the HTTP
// API, because models seldom set it, and a program that hangs uses little.
func (s *Server) defaultTimeout() time.Duration {
	return min(execution.DefaultCommandTimeout, s.opts.Limits.MaxTimeout)
}
