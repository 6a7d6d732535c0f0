package execution_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const nameRule = "must have a name of ASCII letters, digits and _, with no digit first"

// many returns count variables.
func many(count int) map[string]string {
	env := make(map[string]string)
	for i := range count {
		env[fmt.Sprintf("V%d", i)] = ""
	}
	return env
}

func TestValidateEnvironment(t *testing.T) {
	for name, test := range map[string]struct {
		env  map[string]string
		args []string
		want []string
	}{
		"none":                         {nil, nil, nil},
		"empty":                        {map[string]string{}, []string{}, nil},
		"some":                         {map[string]string{"A": "1", "_b9": "", "PATH": "/x=y:ü\n"}, []string{"", "-x", "ü\n"}, nil},
		"as much as is allowed":        {many(64), slices.Repeat([]string{""}, 256), nil},
		"the longest name":             {map[string]string{strings.Repeat("N", 128): ""}, nil, nil},
		"the longest value":            {map[string]string{"A": strings.Repeat("x", 64<<10-3)}, nil, nil},
		"the longest argument":         {nil, []string{strings.Repeat("x", 64<<10-1)}, nil},
		"a similar name":               {map[string]string{"VIVARIUM": "", "MY_VIVARIUM_X": ""}, nil, nil},
		"a hyphen":                     {map[string]string{"FOO-BAR": "secret"}, nil, []string{"env.FOO-BAR " + nameRule}},
		"a dot":                        {map[string]string{"a.b": "secret"}, nil, []string{"env.a.b " + nameRule}},
		"an equals sign":               {map[string]string{"A=B": "secret"}, nil, []string{"env.A=B " + nameRule}},
		"a digit first":                {map[string]string{"9A": "secret"}, nil, []string{"env.9A " + nameRule}},
		"a letter that is not ASCII":   {map[string]string{"É": "secret"}, nil, []string{"env.É " + nameRule}},
		"a line break at its end":      {map[string]string{"A\n": "secret"}, nil, []string{"env.A\n " + nameRule}},
		"no name":                      {map[string]string{"": "secret"}, nil, []string{"env must not have an empty name"}},
		"a long name":                  {map[string]string{strings.Repeat("N", 129): "secret"}, nil, []string{"env." + strings.Repeat("N", 129) + " must have a name of at most 128 bytes"}},
		"a name of ours":               {map[string]string{"VIVARIUM_X": "secret"}, nil, []string{"env.VIVARIUM_X must not be set: names that begin with VIVARIUM_ are reserved"}},
		"in lower case":                {map[string]string{"vivarium_x": "secret"}, nil, []string{"env.vivarium_x must not be set: names that begin with VIVARIUM_ are reserved"}},
		"NUL in a value":               {map[string]string{"A": "secret\x00"}, nil, []string{"env.A must not contain NUL"}},
		"a value that is not UTF-8":    {map[string]string{"A": "secret\xff"}, nil, []string{"env.A must be valid UTF-8"}},
		"NUL in an argument":           {nil, []string{"a", "b\x00"}, []string{`args[1] must not contain NUL (it is "b\x00")`}},
		"an argument that is no UTF-8": {nil, []string{"b\xff"}, []string{`args[0] must be valid UTF-8 (it is "b\xff")`}},
		"several": {map[string]string{"A-": "secret", "B": "secret\x00"}, []string{"\x00"}, []string{
			"env.A- " + nameRule, "env.B must not contain NUL", `args[0] must not contain NUL (it is "\x00")`,
		}},
		"too many variables":   {many(65), nil, []string{"env must have at most 64 variables, and has 65"}},
		"too many arguments":   {nil, slices.Repeat([]string{""}, 257), []string{"args must have at most 256 arguments, and has 257"}},
		"too long a value":     {map[string]string{"A": strings.Repeat("x", 64<<10-2)}, nil, []string{"env must have at most 65536 bytes of names, values and arguments, and has 65537"}},
		"too long an argument": {nil, []string{strings.Repeat("x", 64<<10)}, []string{"args must have at most 65536 bytes, and has 65537"}},
		"too much in all":      {map[string]string{"A": strings.Repeat("x", 40<<10)}, []string{strings.Repeat("x", 40<<10)}, []string{"env must have at most 65536 bytes of names, values and arguments, and has 81924"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, requestErr := execution.Request{Env: test.env, Args: test.args}.Validate(t.Context(), limits)
			_, commandErr := execution.Command{Command: "ls", Env: test.env, Args: test.args}.Validate(limits)
			for _, err := range []error{requestErr, commandErr} {
				var got []string
				if err != nil {
					for _, field := range asError(t, err, execution.Invalid).Fields {
						got = append(got, field.String())
					}
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if err != nil && strings.Contains(err.Error(), "secret") {
					t.Errorf("the error has the value: %v", err)
				}
			}
		})
	}
}

func TestValidateEnvironmentBesideOtherFaults(t *testing.T) {
	_, err := execution.Request{Timeout: -1, Env: map[string]string{"-": ""}, Files: []execution.Input{file("..")}}.Validate(t.Context(), limits)
	if fields := asError(t, err, execution.Invalid).Fields; len(fields) != 3 {
		t.Errorf("the faults are %v", fields)
	}
}
