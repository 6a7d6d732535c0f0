package mcp

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// envArgument returns the option of a tool that adds the argument env, if a model may set
// variables.
func (s *Server) envArgument() mcpsdk.ToolOption {
	if len(s.opts.EnvNames) == 0 {
		return func(*mcpsdk.Tool) {}
	}
	variables := make(map[string]any)
	for _, name := range s.opts.EnvNames {
		variables[name] = map[string]any{"type": "string"}
	}
	return mcpsdk.WithObject("env", mcpsdk.Description("Environment variables for this call."),
		mcpsdk.Properties(variables), mcpsdk.AdditionalProperties(false))
}

// parseWithEnv is [parse] for a tool that has the argument env if a model may set variables. It
// returns them.
func (s *Server) parseWithEnv(raw, into any, needed ...required) (env map[string]string, err error) {
	given, ok := raw.(map[string]any)
	if !ok || len(s.opts.EnvNames) == 0 {
		return nil, parse(raw, into, needed...) // which knows no env
	}
	if err := checkNames("", given, append(names(into), "env"), needed); err != nil {
		return nil, err
	}
	if env, err = s.variables(given["env"]); err != nil {
		return nil, err
	}
	rest := maps.Clone(given)
	delete(rest, "env")
	return env, parse(rest, into, needed...)
}

// variables returns the variables of an argument env. No error has the value of a variable.
func (s *Server) variables(value any) (map[string]string, error) {
	env := make(map[string]string)
	if value == nil {
		return env, nil
	}
	given, ok := value.(map[string]any)
	if !ok {
		return nil, invalid("env must be an object")
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		text, isText := given[name].(string)
		field := "env." + execution.Clip(name)
		switch {
		case !slices.Contains(s.opts.EnvNames, name):
			return nil, invalid(fmt.Sprintf("%s must not be set: the allowed names are %s", field, strings.Join(s.opts.EnvNames, ", ")))
		case !isText:
			return nil, invalid(field + " must be a string")
		}
		env[name] = text
	}
	return env, nil
}
