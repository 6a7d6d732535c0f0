package mcp

import (
	"context"
	"errors"
	"fmt"
	"strings"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/wire"
)

// asDeclared returns a call's arguments with the types that the tool's schema declares. Some clients
// send a string with JSON where the schema has another type, at times for all arguments, and a model
// cannot correct that. It changes the arguments in place.
//
// A string remains a string where the schema has one, whatever it contains. Values of wrong types
// remain too; decoding them is an error.
func asDeclared(ctx context.Context, schema mcpsdk.ToolInputSchema, arguments any) (any, error) {
	d := declared{wire.NewTexts(execution.AccountOf(ctx))}
	return d.value("arguments", map[string]any{"type": "object", "properties": schema.Properties}, arguments)
}

type declared struct{ texts *wire.Texts }

// value returns a value as its schema declares it, or nil if it counts as absent. The name is for errors.
func (d declared) value(name string, schema map[string]any, value any) (any, error) {
	kind, _ := schema["type"].(string)
	if text, isText := value.(string); isText && begins(kind) != "" {
		var err error
		if value, err = d.decoded(name, kind, text); err != nil {
			return nil, err
		}
	}
	switch value := value.(type) {
	case []any:
		return value, d.elements(name, schema, value)
	case map[string]any:
		return value, d.members(name, schema, value)
	}
	return value, nil
}

func (d declared) elements(name string, schema map[string]any, list []any) error {
	items, _ := schema["items"].(map[string]any)
	for i := range list {
		value, err := d.value(fmt.Sprintf("%s[%d]", name, i), items, list[i])
		if err != nil {
			return err
		}
		list[i] = value
	}
	return nil
}

func (d declared) members(name string, schema, object map[string]any) error {
	properties, _ := schema["properties"].(map[string]any)
	for member, schema := range properties {
		given, isGiven := object[member]
		property, isSchema := schema.(map[string]any)
		if !isGiven || !isSchema {
			continue
		}
		value, err := d.value(strings.TrimPrefix(name+"."+member, "arguments."), property, given)
		if err != nil {
			return err
		}
		object[member] = value
		if value == nil {
			delete(object, member)
		}
	}
	return nil
}

// begins returns the characters with which JSON of a type begins, or "" for a string.
func begins(kind string) string {
	switch kind {
	case "integer", "number":
		return "-0123456789"
	case "boolean":
		return "tf"
	case "array":
		return "["
	case "object":
		return "{"
	}
	return ""
}

// decoded returns the value that a text contains, or the text itself if it has no JSON of the type. An
// empty text and null count as absent: some models fill in what they mean to leave out.
func (d declared) decoded(name, kind, text string) (value any, err error) {
	trimmed := strings.TrimSpace(text)
	switch {
	case trimmed == "" || trimmed == "null":
		return value, nil
	case !strings.Contains(begins(kind), trimmed[:1]):
		return text, nil
	}
	value, err = d.texts.Decode(trimmed)
	limit, beyondLimit := errors.AsType[wire.LimitError](err)
	_, refused := errors.AsType[*execution.Error](err)
	switch {
	case beyondLimit:
		return nil, invalid(name + ": " + limit.Error())
	case refused:
		return nil, err
	case err != nil && name == "env": // its text has values that no error may repeat
		return nil, invalid("env must be an object; its text is not valid JSON")
	case err != nil && (kind == "array" || kind == "object"):
		return nil, invalid(fmt.Sprintf("%s is %s, which is not valid JSON: must be an %s; %s",
			name, show(text), kind, execution.Clip(err.Error())))
	case err != nil:
		return text, nil //nolint:nilerr // decoding the text is an error that says more
	}
	return value, nil
}
