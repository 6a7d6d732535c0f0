package mcp_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp"
)

const secret = "hunter2"

// withEnv returns options that let a model set two variables, and one session, "s". Executor and
// session record what they receive.
func withEnv(received *[]map[string]string) mcp.Options {
	record := func(env map[string]string) (*execution.Result, error) {
		*received = append(*received, env)
		return exited(0), nil
	}
	opts, known := options(func(ctx context.Context, req execution.Request) (*execution.Result, error) {
		if _, err := req.Validate(ctx, options(nil).Limits); err != nil {
			return nil, err
		}
		return record(req.Env)
	}), newSessions()
	known.alive["s"] = true
	known.python = func(req execution.Request) (*execution.Result, error) { return record(req.Env) }
	known.bash = func(cmd execution.Command) (*execution.Result, error) { return record(cmd.Env) }
	opts.Sessions, opts.EnvNames = known, []string{"TOKEN", "REGION"}
	return opts
}

// envCalls are calls of the tools that have the argument env, without it.
func envCalls() map[string]map[string]any {
	return map[string]map[string]any{
		"execute_python":              {"code": ""},
		"execute_python in a session": {"code": "", "session": "s"},
		"run_bash":                    {"command": "true", "session": "s"},
	}
}

// callWithEnv makes each of the calls. It passes on the texts of the answers.
func callWithEnv(t *testing.T, opts mcp.Options, env any, check func(name, text string, failed bool)) {
	t.Helper()
	c := connect(t, opts)
	for name, arguments := range envCalls() {
		arguments = maps.Clone(arguments)
		arguments["env"] = env
		encoded, err := json.Marshal(arguments)
		if err != nil {
			t.Fatal(err)
		}
		tool, _, _ := strings.Cut(name, " ")
		r := c.tool(tool, string(encoded))
		check(name, r.Content[0].Text, r.IsError)
	}
}

func TestEnv(t *testing.T) {
	for name, test := range map[string]struct {
		env  any
		want map[string]string
	}{
		"all names":         {map[string]any{"TOKEN": secret, "REGION": ""}, map[string]string{"TOKEN": secret, "REGION": ""}},
		"one name":          {map[string]any{"TOKEN": secret}, map[string]string{"TOKEN": secret}},
		"none":              {map[string]any{}, nil},
		"null":              {nil, nil},
		"null in text":      {"null", nil},
		"null as a value":   {map[string]any{"TOKEN": nil}, nil},
		"an empty text":     {"", nil},
		"an object in text": {`{"TOKEN": "hunter2"}`, map[string]string{"TOKEN": secret}},
	} {
		t.Run(name, func(t *testing.T) {
			var received []map[string]string
			callWithEnv(t, withEnv(&received), test.env, func(name, text string, failed bool) {
				if failed {
					t.Errorf("%s: %s", name, text)
				}
			})
			if len(received) != len(envCalls()) {
				t.Fatalf("received %v", received)
			}
			for _, env := range received {
				if !maps.Equal(env, test.want) {
					t.Errorf("received %v", env)
				}
			}
		})
	}
}

func TestEnvInvalid(t *testing.T) {
	for name, test := range map[string]struct {
		env  any
		want string
	}{
		"another name":    {map[string]any{"PATH": secret}, "env.PATH must not be set: the allowed names are TOKEN, REGION"},
		"another case":    {map[string]any{"token": secret}, "env.token must not be set: the allowed names are TOKEN, REGION"},
		"a number":        {map[string]any{"TOKEN": 5}, "env.TOKEN must be a string"},
		"a list":          {map[string]any{"TOKEN": []any{secret}}, "env.TOKEN must be a string"},
		"NUL":             {map[string]any{"TOKEN": secret + "\x00"}, "env.TOKEN must not contain NUL"},
		"a list of pairs": {[]any{"TOKEN=" + secret}, "env must be an object"},
		"a pair":          {"TOKEN=" + secret, "env must be an object"},
		"broken text":     {`{"TOKEN": "` + secret, "env must be an object; its text is not valid JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			var received []map[string]string
			callWithEnv(t, withEnv(&received), test.env, func(name, text string, failed bool) {
				if !failed || text != test.want {
					t.Errorf("%s: error %v: %s", name, failed, text)
				}
			})
			if len(received) > 0 {
				t.Errorf("it was run: %v", received)
			}
		})
	}
}

func TestEnvIsUnknownWithoutNames(t *testing.T) {
	var received []map[string]string
	opts := withEnv(&received)
	opts.EnvNames = nil
	callWithEnv(t, opts, map[string]any{"TOKEN": secret}, func(name, text string, failed bool) {
		if !failed || !strings.HasPrefix(text, `unknown argument "env": the known ones are `) {
			t.Errorf("%s: error %v: %s", name, failed, text)
		}
	})
}

func TestUnknownArgumentsBesideEnv(t *testing.T) {
	var received []map[string]string
	text, failed := connect(t, withEnv(&received)).call(`{"code": "", "environment": {}}`)
	if !failed || !strings.HasSuffix(text, "stdin, args, env") {
		t.Errorf("error %v: %s", failed, text)
	}
}

// The schema lists the allowed names and no others.
func TestEnvSchema(t *testing.T) {
	var received []map[string]string
	var list struct {
		Tools []struct {
			Name        string
			InputSchema struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(connect(t, withEnv(&received)).request("tools/list", `{}`).Result, &list); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]any)
	for _, tool := range list.Tools {
		if env, found := tool.InputSchema.Properties["env"].(map[string]any); found {
			delete(env, "description")
			got[tool.Name] = env
		}
	}
	variable := map[string]any{"type": "string"}
	env := map[string]any{
		"type": "object", "additionalProperties": false, "properties": map[string]any{"TOKEN": variable, "REGION": variable},
	}
	if diff := cmp.Diff(map[string]any{"execute_python": env, "run_bash": env}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The log, at any level, has no value of a variable, however a call ends.
func TestEnvIsNotLogged(t *testing.T) {
	for name, env := range map[string]any{
		"valid": map[string]any{"TOKEN": secret}, "NUL": map[string]any{"TOKEN": secret + "\x00"}, "a pair": "TOKEN=" + secret,
	} {
		var log logged
		var received []map[string]string
		opts := withEnv(&received)
		opts.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		opts.Executor = execute(func(ctx context.Context, req execution.Request) (*execution.Result, error) {
			if _, err := req.Validate(ctx, options(nil).Limits); err != nil {
				return nil, err
			}
			return nil, errors.New("out of order")
		})
		callWithEnv(t, opts, env, func(_, text string, _ bool) {
			if strings.Contains(text, secret) {
				t.Errorf("%s: %s", name, text)
			}
		})
		if strings.Contains(log.String(), secret) || name == "valid" && !strings.Contains(log.String(), "out of order") {
			t.Errorf("%s: the log is %q", name, log.String())
		}
	}
}
