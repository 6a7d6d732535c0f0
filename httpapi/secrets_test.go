package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

func TestExecuteInvalidEnvironment(t *testing.T) {
	const rule = "must have a name of ASCII letters, digits and _, with no digit first"
	testInvalid(t, map[string]invalidBody{
		"env list":        {`{"code": "", "env": ["A=1"]}`, one("dict_type", `, "env"`, "expected object", "null")},
		"env text":        {`{"code": "", "env": "A=1"}`, one("dict_type", `, "env"`, "expected object", "null")},
		"env null":        {`{"code": "", "env": null}`, one("dict_type", `, "env"`, "env must be of type object, not null", "null")},
		"value number":    {`{"code": "", "env": {"A": 5}}`, one("string_type", `, "env", "A"`, "expected string", "null")},
		"value null":      {`{"code": "", "env": {"A": null}}`, one("string_type", `, "env", "A"`, "expected string", "null")},
		"value list":      {`{"code": "", "env": {"A.5": ["x"]}}`, one("string_type", `, "env", "A.5"`, "expected string", "null")},
		"bad name":        {`{"code": "", "env": {"FOO-BAR": "x"}}`, one("value_error", `, "env", "FOO-BAR"`, "env.FOO-BAR "+rule, "null")},
		"no name":         {`{"code": "", "env": {"": "x"}}`, one("value_error", `, "env"`, "env must not have an empty name", "null")},
		"a name of ours":  {`{"code": "", "env": {"Vivarium_X": "x"}}`, one("value_error", `, "env", "Vivarium_X"`, "env.Vivarium_X must not be set: names that begin with VIVARIUM_ are reserved", "null")},
		"NUL in a value":  {`{"code": "", "env": {"A": "\u0000"}}`, one("value_error", `, "env", "A"`, "env.A must not contain NUL", "null")},
		"args text":       {`{"code": "", "args": "-v"}`, one("list_type", `, "args"`, "expected array", `"-v"`)},
		"args null":       {`{"code": "", "args": null}`, one("list_type", `, "args"`, "args must be of type array, not null", "null")},
		"argument number": {`{"code": "", "args": ["a", 5]}`, one("string_type", `, "args", 1`, "expected string", "5")},
		"argument null":   {`{"code": "", "args": [null]}`, one("string_type", `, "args", 0`, "expected string", "null")},
		"NUL in argument": {`{"code": "", "args": ["a", "\u0000"]}`, one("value_error", `, "args", 1`, "args[1] must not contain NUL", `"\u0000"`)},
	})
}

const secret = "hunter2"

// secretBodies are bodies with a variable whose value must not be repeated.
func secretBodies() map[string]string {
	return map[string]string{
		"a valid request":    `{"code": "1", "cmd": "ls", "env": {"TOKEN": "hunter2"}}`,
		"a name":             `{"code": "1", "cmd": "ls", "env": {"FOO-BAR": "hunter2"}}`,
		"a value":            `{"code": "1", "cmd": "ls", "env": {"TOKEN": "hunter2\u0000"}}`,
		"a type of a value":  `{"code": "1", "cmd": "ls", "env": {"TOKEN": ["hunter2"]}}`,
		"the type of env":    `{"code": "1", "cmd": "ls", "env": "TOKEN=hunter2"}`,
		"env is a list":      `{"code": "1", "cmd": "ls", "env": [{"TOKEN": "hunter2"}]}`,
		"a missing field":    `{"env": {"TOKEN": "hunter2"}}`,
		"in capital letters": `{"ENV": {"TOKEN": "hunter2"}}`,
		"a list of requests": `[{"code": "1", "cmd": "ls", "env": {"TOKEN": "hunter2"}}]`,
		"a text":             `"{\"env\": {\"TOKEN\": \"hunter2\"}}"`,
		"no JSON":            `{"code": "1", "cmd": "ls", "env": {"TOKEN": "hunter2"}`,
		"another field":      `{"code": "1", "cmd": "ls", "timeout_ms": 0, "env": {"TOKEN": "hunter2"}}`,
	}
}

// Neither an answer nor the log, at any level, has the value of a variable.
func TestValuesOfVariablesAreNotRepeated(t *testing.T) {
	for name, body := range secretBodies() {
		for _, path := range []string{
			"/v1/execute", "/v1/execute/stream", "/v1/sessions/" + knownSession + "/execute",
			"/v1/sessions/" + knownSession + "/execute/stream", "/v1/sessions/" + knownSession + "/bash",
		} {
			var log bytes.Buffer
			opts := options(func(ctx context.Context, req execution.Request) (*execution.Result, error) {
				if _, err := req.Validate(ctx, limits); err != nil {
					return nil, err
				}
				if req.Env["TOKEN"] != secret {
					t.Errorf("%s: the executor receives %v", name, req.Env)
				}
				return nil, errors.New("out of order")
			})
			opts.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			a := serve(httpapi.NewHandler(opts), request(http.MethodPost, path, body))
			if strings.Contains(a.body, secret) && !strings.Contains(a.body, "TOKEN:"+secret) { // the fake session prints it
				t.Errorf("%s: %s answers %d %s", name, path, a.status, a.body)
			}
			if log.Len() == 0 || strings.Contains(log.String(), secret) {
				t.Errorf("%s: %s logs %q", name, path, &log)
			}
		}
	}
}
