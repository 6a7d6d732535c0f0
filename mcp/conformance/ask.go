//go:build conformance

package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// need is an input that a fixture needs from its client.
type need struct {
	id  string
	add func(*mcpserver.InputRequestBuilder) // asks for it
}

func elicit(id, message string, properties map[string]any, required ...string) need {
	schema := map[string]any{"type": "object", "properties": properties}
	if len(required) > 0 {
		schema["required"] = required
	}
	return need{id, func(b *mcpserver.InputRequestBuilder) {
		b.Elicit(id, mcpsdk.ElicitationParams{Message: message, RequestedSchema: schema})
	}}
}

// elicitText asks for one text.
func elicitText(id, message, property string) need {
	return elicit(id, message, map[string]any{property: map[string]any{"type": "string"}}, property)
}

func sample(id, prompt string) need {
	return need{id, func(b *mcpserver.InputRequestBuilder) {
		b.Sample(id, mcpsdk.CreateMessageParams{
			Messages:  []mcpsdk.SamplingMessage{{Role: mcpsdk.RoleUser, Content: mcpsdk.NewTextContent(prompt)}},
			MaxTokens: 100,
		})
	}}
}

func roots(id string) need {
	return need{id, func(b *mcpserver.InputRequestBuilder) { b.Roots(id) }}
}

// asking is a fixture that asks its client for input, in rounds, before it answers.
type asking struct {
	rounds [][]need
	text   string // the answer
	// state, unless it is empty, must be returned with the client's answers.
	state string
}

// next returns the next question, or nil when there is none.
func (a asking) next(given mcpsdk.MultiRoundTripParams) (*mcpserver.InputRequestBuilder, error) {
	states := make([]string, len(a.rounds))
	for i := range a.rounds {
		if a.state != "" {
			states[i] = a.state + "-" + strconv.Itoa(i)
		}
	}
	round := 0
	if given.RequestState != "" {
		round = slices.Index(states, given.RequestState)
	}
	if round < 0 {
		return nil, errors.New("the request's state is unknown")
	}
	if answered(given.InputResponses, a.rounds[round]) {
		round++
	}
	if round == len(a.rounds) {
		return nil, nil //nolint:nilnil // no question remains
	}
	b := mcpserver.NewInputRequestBuilder(states[round])
	for _, n := range a.rounds[round] {
		n.add(b)
	}
	return b, nil
}

// answered reports whether the client has sent all inputs.
func answered(responses mcpsdk.InputResponses, needs []need) bool {
	for _, n := range needs {
		data, err := json.Marshal(responses[n.id])
		if err != nil || len(data) == 0 || data[0] != '{' {
			return false
		}
	}
	return true
}

func (a asking) call(_ context.Context, call mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
	question, err := a.next(call.Params.MultiRoundTripParams)
	if err != nil {
		return nil, err
	}
	if question != nil {
		return question.ToolResult(), nil
	}
	return mcpsdk.NewToolResultText(a.text), nil
}

func (a asking) prompt(_ context.Context, get mcpsdk.GetPromptRequest) (*mcpsdk.GetPromptResult, error) {
	question, err := a.next(get.Params.MultiRoundTripParams)
	if err != nil {
		return nil, err
	}
	if question != nil {
		return question.PromptResult(), nil
	}
	return &mcpsdk.GetPromptResult{Messages: []mcpsdk.PromptMessage{
		mcpsdk.NewPromptMessage(mcpsdk.RoleUser, mcpsdk.NewTextContent(a.text)),
	}}, nil
}

// addAsking adds tools and a prompt that ask. To clients of revisions before 2026-07-28, the
// library sends the same questions as requests.
func (f fixtures) addAsking() {
	name := elicitText("user_name", "What is your name?", "name")
	confirm := elicit("confirm", "Please confirm", map[string]any{"ok": map[string]any{"type": "boolean"}}, "ok")
	greeting, folders := sample("greeting", "Generate a greeting"), roots("client_roots")
	for tool, a := range map[string]asking{
		"test_input_required_result_elicitation":     {[][]need{{name}}, "Hello!", ""},
		"test_input_required_result_sampling":        {[][]need{{sample("capital_question", "What is the capital of France?")}}, "It is said.", ""},
		"test_input_required_result_list_roots":      {[][]need{{folders}}, "There are roots.", ""},
		"test_input_required_result_request_state":   {[][]need{{confirm}}, "state-ok", "confirmed"},
		"test_input_required_result_tampered_state":  {[][]need{{confirm}}, "state-ok", "sealed"},
		"test_input_required_result_multiple_inputs": {[][]need{{name, greeting, folders}}, "All is known.", "several"},
		"test_input_required_result_multi_round": {
			[][]need{{elicitText("step1", "Step 1: What is your name?", "name")}, {elicitText("step2", "Step 2: What is your favorite color?", "color")}},
			"Both are known.", "round",
		},
		"test_streaming_elicitation":        {[][]need{{name}}, "Hello!", ""},
		"test_elicitation_sep1034_defaults": {[][]need{{elicit("defaults", "Please provide your information", defaults())}}, "Elicitation completed", ""},
		"test_elicitation_sep1330_enums":    {[][]need{{elicit("enums", "Please select", enums())}}, "Elicitation completed", ""},
	} {
		f.tool(tool, a.call)
	}
	context := asking{[][]need{{elicitText("user_context", "What context should the prompt use?", "context")}}, "Use it.", ""}
	f.AddPrompt(mcpsdk.NewPrompt("test_input_required_result_prompt", mcpsdk.WithPromptDescription(fixture)), context.prompt)
	f.addAskingByArguments()
	f.addAskingByCapabilities()
}

// addAskingByArguments adds tools that take their question as an argument.
func (f fixtures) addAskingByArguments() {
	for tool, question := range map[string]struct {
		argument string
		need     func(text string) need
	}{
		"test_sampling": {"prompt", func(text string) need { return sample("answer", text) }},
		"test_elicitation": {"message", func(text string) need {
			property := map[string]any{"type": "string"}
			return elicit("user", text, map[string]any{"username": property, "email": property}, "username", "email")
		}},
	} {
		f.tool(tool, func(ctx context.Context, call mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
			return asking{[][]need{{question.need(call.GetString(question.argument, ""))}}, "It has been answered.", ""}.call(ctx, call)
		}, mcpsdk.WithString(question.argument, mcpsdk.Required()))
	}
}

// addAskingByCapabilities adds tools that depend on the client's capabilities.
func (f fixtures) addAskingByCapabilities() {
	can := func(ctx context.Context) mcpsdk.ClientCapabilities {
		if info := mcpserver.RequestProtocolInfoFromContext(ctx); info != nil && info.ClientCapabilities != nil {
			return *info.ClientCapabilities
		}
		return mcpsdk.ClientCapabilities{}
	}
	f.tool("test_input_required_result_capabilities", func(ctx context.Context, call mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
		var needs []need
		if can(ctx).Sampling != nil {
			needs = append(needs, sample("greeting", "Generate a greeting"))
		}
		if can(ctx).Elicitation != nil {
			needs = append(needs, elicitText("user_name", "What is your name?", "name"))
		}
		return asking{[][]need{needs}, "All is known.", ""}.call(ctx, call)
	})
	f.tool("test_missing_capability", func(ctx context.Context, _ mcpsdk.CallToolRequest) (*mcpsdk.CallToolResult, error) {
		if can(ctx).Sampling == nil {
			return nil, mcpsdk.MissingRequiredClientCapabilityError{Capability: "sampling"}
		}
		return mcpsdk.NewToolResultText("It can."), nil
	})
}

// defaults returns the fields of a form, one of each type, with defaults.
func defaults() map[string]any {
	return map[string]any{
		"name":     map[string]any{"type": "string", "default": "John Doe"},
		"age":      map[string]any{"type": "integer", "default": 30},
		"score":    map[string]any{"type": "number", "default": 95.5},
		"status":   map[string]any{"type": "string", "enum": []string{"active", "inactive", "pending"}, "default": "active"},
		"verified": map[string]any{"type": "boolean", "default": true},
	}
}

// enums returns the fields of a form, one for each way to choose.
func enums() map[string]any {
	choices := []string{"option1", "option2", "option3"}
	titled := []map[string]any{{"const": "value1", "title": "First Option"}, {"const": "value2", "title": "Second Option"}}
	return map[string]any{
		"untitledSingle": map[string]any{"type": "string", "enum": choices},
		"titledSingle":   map[string]any{"type": "string", "oneOf": titled},
		"legacyEnum":     map[string]any{"type": "string", "enum": choices, "enumNames": []string{"One", "Two", "Three"}},
		"untitledMulti":  map[string]any{"type": "array", "items": map[string]any{"type": "string", "enum": choices}},
		"titledMulti":    map[string]any{"type": "array", "items": map[string]any{"anyOf": titled}},
	}
}
