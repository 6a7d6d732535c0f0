//go:build conformance

// Package conformance adds the tools, resources and prompts that the official conformance suites
// of MCP call. It does so only in builds with -tags conformance.
package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

// fixture is the description of each fixture.
const fixture = "a fixture of the conformance suites"

// A picture of one pixel, and one sample of silence.
const (
	fixturePNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
	fixtureWAV = "UklGRiUAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQEAAACA"
)

// pause is the time between the messages of fixtures that send several.
const pause = 50 * time.Millisecond

// Add adds the fixtures to the server's own tools, so that requests for them take the same path.
func Add(s *mcpserver.MCPServer) {
	for _, option := range []mcpserver.ServerOption{
		mcpserver.WithToolCapabilities(true), mcpserver.WithPromptCapabilities(true), mcpserver.WithResourceCapabilities(true, true),
		mcpserver.WithLogging(), mcpserver.WithCompletions(), mcpserver.WithElicitation(),
	} {
		option(s)
	}
	s.EnableSampling()
	f := fixtures{s}
	f.addContents()
	f.addNotifying()
	f.addAsking()
	f.addSchemas()
	f.addResources()
	f.addPrompts()
}

type fixtures struct{ *mcpserver.MCPServer }

// tool adds a tool without arguments of its own.
func (f fixtures) tool(name string, handler mcpserver.ToolHandlerFunc, options ...mcpsdk.ToolOption) {
	f.AddTool(mcpsdk.NewTool(name, append(options, mcpsdk.WithDescription(fixture))...), handler)
}

// addContents adds tools that return each kind of content.
func (f fixtures) addContents() {
	text := mcpsdk.NewTextContent
	picture := mcpsdk.NewImageContent(fixturePNG, "image/png")
	resource := func(uri, mime, content string) mcpsdk.Content {
		return mcpsdk.NewEmbeddedResource(mcpsdk.TextResourceContents{URI: uri, MIMEType: mime, Text: content})
	}
	for name, content := range map[string][]mcpsdk.Content{
		"test_simple_text":            {text("This is a simple text response for testing.")},
		"test_image_content":          {picture},
		"test_audio_content":          {mcpsdk.NewAudioContent(fixtureWAV, "audio/wav")},
		"test_embedded_resource":      {resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")},
		"test_multiple_content_types": {text("Multiple content types test:"), picture, resource("test://mixed-content-resource", "application/json", `{"test":"data","value":123}`)},
	} {
		f.tool(name, func(context.Context, mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
			return &mcpsdk.CallToolResult{Content: content}, nil
		})
	}
	f.tool("test_error_handling", func(context.Context, mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
		return mcpsdk.NewToolResultError("This tool intentionally returns an error for testing"), nil
	})
}

// addNotifying adds tools that send notifications before their result.
func (f fixtures) addNotifying() {
	logs := func(ctx context.Context, _ mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
		for _, line := range []string{"Tool execution started", "Tool processing data", "Tool execution completed"} {
			message := mcpsdk.NewLoggingMessageNotification(mcpsdk.LoggingLevelInfo, "fixtures", line)
			if err := f.SendLogMessageToClient(ctx, message); err != nil {
				return nil, err
			}
			time.Sleep(pause)
		}
		return mcpsdk.NewToolResultText("logged"), nil
	}
	f.tool("test_tool_with_logging", logs)
	f.tool("test_logging_tool", logs)
	f.tool("test_tool_with_progress", func(ctx context.Context, call mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
		for progress := 0; progress <= 100; progress += 50 {
			if meta := call.Params.Meta; meta != nil && meta.ProgressToken != nil {
				err := transport.Notify(ctx, f.MCPServer, "notifications/progress", map[string]any{
					"progressToken": meta.ProgressToken, "progress": progress, "total": 100,
				})
				if err != nil {
					return nil, err
				}
			}
			time.Sleep(pause)
		}
		return mcpsdk.NewToolResultText("done"), nil
	})
	f.tool("test_trigger_tool_change", func(context.Context, mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
		f.tool("test_passing_tool", nil)
		f.DeleteTools("test_passing_tool")
		return mcpsdk.NewToolResultText("changed"), nil
	})
	f.tool("test_trigger_prompt_change", func(context.Context, mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
		f.AddPrompt(mcpsdk.NewPrompt("test_passing_prompt"), nil)
		f.DeletePrompts("test_passing_prompt")
		return mcpsdk.NewToolResultText("changed"), nil
	})
}

// addSchemas adds tools whose input schemas must arrive as they are.
func (f fixtures) addSchemas() {
	f.AddTool(mcpsdk.NewToolWithRawSchema("json_schema_2020_12_tool", fixture, json.RawMessage(`{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
		"$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}},
		"properties": {
			"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"},
			"contactMethod": {"type": "string", "enum": ["phone", "email"]}, "phone": {"type": "string"}, "email": {"type": "string"}
		},
		"allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
		"if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
		"then": {"required": ["phone"]}, "else": {"required": ["email"]}, "additionalProperties": false
	}`)), answer("valid"))
	f.AddTool(mcpsdk.NewToolWithRawSchema("test_headers", fixture, json.RawMessage(`{
		"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}
	}`)), answer("valid"))
}

// answer returns a handler that always returns the same text.
func answer(text string) mcpserver.ToolHandlerFunc {
	return func(context.Context, mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
		return mcpsdk.NewToolResultText(text), nil
	}
}

func (f fixtures) addResources() {
	for _, contents := range []mcpsdk.ResourceContents{
		mcpsdk.TextResourceContents{URI: "test://static-text", MIMEType: "text/plain", Text: "This is the content of the static text resource."},
		mcpsdk.BlobResourceContents{URI: "test://static-binary", MIMEType: "image/png", Blob: fixturePNG},
		mcpsdk.TextResourceContents{URI: "test://watched-resource", MIMEType: "text/plain", Text: "watched"},
	} {
		uri := uriOf(contents)
		f.AddResource(mcpsdk.NewResource(uri, uri), func(context.Context, mcpsdk.ReadResourceRequest) ([]mcpsdk.ResourceContents, error) {
			return []mcpsdk.ResourceContents{contents}, nil
		})
	}
	template := mcpsdk.NewResourceTemplate("test://template/{id}/data", "template", mcpsdk.WithTemplateMIMEType("application/json"))
	f.AddResourceTemplate(template, func(_ context.Context, read mcpsdk.ReadResourceRequest) ([]mcpsdk.ResourceContents, error) {
		id := template.URITemplate.Match(read.Params.URI).Get("id").String()
		return []mcpsdk.ResourceContents{mcpsdk.TextResourceContents{
			URI: read.Params.URI, MIMEType: "application/json", Text: fmt.Sprintf(`{"id": %q, "templateTest": true, "data": "Data for ID: %s"}`, id, id),
		}}, nil
	})
}

func uriOf(contents mcpsdk.ResourceContents) string {
	switch c := contents.(type) {
	case mcpsdk.TextResourceContents:
		return c.URI
	case mcpsdk.BlobResourceContents:
		return c.URI
	}
	return ""
}

func (f fixtures) addPrompts() {
	prompt := func(name string, messages func(map[string]string) []mcpsdk.Content, arguments ...string) {
		options := []mcpsdk.PromptOption{mcpsdk.WithPromptDescription(fixture)}
		for _, argument := range arguments {
			options = append(options, mcpsdk.WithArgument(argument, mcpsdk.RequiredArgument()))
		}
		f.AddPrompt(mcpsdk.NewPrompt(name, options...), func(_ context.Context, get mcpsdk.GetPromptRequest) (*mcpsdk.GetPromptResult, error) {
			var result mcpsdk.GetPromptResult
			for _, content := range messages(get.Params.Arguments) {
				result.Messages = append(result.Messages, mcpsdk.NewPromptMessage(mcpsdk.RoleUser, content))
			}
			return &result, nil
		})
	}
	prompt("test_simple_prompt", func(map[string]string) []mcpsdk.Content {
		return []mcpsdk.Content{mcpsdk.NewTextContent("This is a simple prompt for testing.")}
	})
	prompt("test_prompt_with_arguments", func(given map[string]string) []mcpsdk.Content {
		return []mcpsdk.Content{mcpsdk.NewTextContent(fmt.Sprintf("Prompt with arguments: arg1='%s', arg2='%s'", given["arg1"], given["arg2"]))}
	}, "arg1", "arg2")
	prompt("test_prompt_with_embedded_resource", func(given map[string]string) []mcpsdk.Content {
		return []mcpsdk.Content{
			mcpsdk.NewEmbeddedResource(mcpsdk.TextResourceContents{URI: given["resourceUri"], MIMEType: "text/plain", Text: "Embedded resource content for testing."}),
			mcpsdk.NewTextContent("Please process the embedded resource above."),
		}
	}, "resourceUri")
	prompt("test_prompt_with_image", func(map[string]string) []mcpsdk.Content {
		return []mcpsdk.Content{mcpsdk.NewImageContent(fixturePNG, "image/png"), mcpsdk.NewTextContent("Please analyze the image above.")}
	})
}
