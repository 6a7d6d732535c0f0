package httpapi

import (
	"bytes"
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/wire"
)

// The examples of the routes that run programs. Tests send the requests to a server and
// compare its answers with the examples of the same name.

const exampleFileID = "8cae838bb6d3d0152e9be8935cec1150"

// runErrors returns the statuses of the errors of a run.
func runErrors() []int {
	return []int{
		http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity,
		http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable,
	}
}

func executeIllustration() illustration {
	answers := runRefusals()
	answers[http.StatusOK] = answer{"The program ran; end has the reason for its end", runAnswers()}
	return illustration{requests: runRequests(), answers: answers}
}

func streamIllustration() illustration {
	answers := runRefusals()
	answers[http.StatusOK] = answer{
		"Server-sent events: output as it appears, then one result, or one error if the server fails after the start. " +
			"The server sends a comment after 15 s without an event",
		[]sample{
			{"steps", "Two streams and a result", stepsStream()},
			{"trouble", "The sandbox fails", exampleStream(
				exampleEvent{"output", outputEvent{execution.Stdout, "step 0\n"}},
				exampleEvent{"error", errorEvent{"no sandbox could run the program; try again"}},
			)},
		},
	}
	return illustration{requests: streamRequests(), answers: answers}
}

func streamRequests() []sample {
	steps := executeRequest{Code: `import sys, time

for step in range(3):
    print("step", step)
    time.sleep(0.5)
print("done", file=sys.stderr)`}
	return []sample{
		{"steps", "Output over time", steps},
		{"timeout", "A program that does not end", executeRequest{Code: "while True:\n    pass", TimeoutMS: 500}},
	}
}

func runRequests() []sample {
	sheet := "bmFtZSxzY29yZQpBZGEsOQpHcmFjZSw4Cg==" // name,score Ada,9 Grace,8
	stdin, id := "Ada\n", exampleFileID
	return []sample{
		{"expression", "Show the value of the last line", executeRequest{Code: "import math\n\nprint(\"The area is\")\nmath.pi * 2 ** 2"}},
		{"failure", "A program that fails", executeRequest{Code: "1 / 0"}},
		{"files", "Stage a file and return the file that the program writes", executeRequest{
			Code: `import csv

rows = list(csv.DictReader(open("scores.csv")))
with open("total.txt", "w") as out:
    print(sum(int(row["score"]) for row in rows), file=out)
len(rows)`,
			Files: []inputFile{{Path: "scores.csv", ContentBase64: &sheet}},
		}},
		{"stdin", "Standard input", executeRequest{Code: `print(f"Hello, {input()}!")`, Stdin: &stdin}},
		{"timeout", "A program that does not end", executeRequest{Code: "while True:\n    pass", TimeoutMS: 500}},
		{"uploaded", "Stage an uploaded file", executeRequest{
			Code:  `print(open("data/scores.csv").read())`,
			Files: []inputFile{{Path: "data/scores.csv", FileID: &id}},
		}},
		{"variables", "Environment variables and arguments", executeRequest{
			Code: "import os, sys\n\nprint(os.environ[\"REGION\"], sys.argv[1:])",
			Args: []string{"--fast"}, Env: map[string]string{"REGION": "eu"},
		}},
	}
}

func runAnswers() []sample {
	valued := ended(0, "The area is\n12.566370614359172\n", "")
	valued.Results = []displayed{{"text/plain": "12.566370614359172"}}
	withFile := ended(0, "2\n", "")
	withFile.Results = []displayed{{"text/plain": "2"}}
	withFile.Files = []outputFile{{Path: "total.txt", Kind: "file", FileID: exampleFileID, SizeBytes: 3}}
	timedOut := ended(0, "", "")
	timedOut.ExitCode, timedOut.TimedOut, timedOut.DurationMS = nil, true, 504
	timedOut.End = end{Reason: execution.Timeout, Message: "stopped after 500 ms"}
	return []sample{
		{"expression", "Show the value of the last line", valued},
		{"failure", "A program that fails", ended(1, "", `Traceback (most recent call last):
  File "/workspace/__main__.py", line 1, in <module>
    1 / 0
    ~~^~~
ZeroDivisionError: division by zero
`)},
		{"files", "Stage a file and return the file that the program writes", withFile},
		{"stdin", "Standard input", ended(0, "Hello, Ada!\n", "")},
		{"timeout", "A program that does not end", timedOut},
		{"variables", "Environment variables and arguments", ended(0, "eu ['--fast']\n", "")},
	}
}

// ended returns the answer for a program that exited.
func ended(exitCode int, stdout, stderr string) executeResponse {
	return executeResponse{
		Stdout: stdout, Stderr: stderr, ExitCode: &exitCode, DurationMS: 2, Files: []outputFile{},
		End: end{Reason: execution.Exited}, Usage: usage{CPUMS: 2, PeakMemoryBytes: 13324288}, QueueMS: 1, SkippedFiles: []skippedFile{},
		Results: []displayed{},
	}
}

func runRefusals() map[int]answer {
	return map[int]answer{
		http.StatusNotFound: {"A file to stage does not exist", []sample{
			refusal("unknown-file", "An unknown or expired file", "File with ID '"+exampleFileID+"' not found for path 'data/scores.csv'."),
		}},
		http.StatusRequestEntityTooLarge: {"The body or the files are too large", []sample{
			refusal("body", "More than MAX_BODY_MB", bodyTooLarge(32<<20)),
			refusal("files", "More than WORKSPACE_LIMIT_MB", "files take 104857600 bytes, more than the workspace of 64 MB holds"),
		}},
		http.StatusUnprocessableEntity: {"The request is not valid", []sample{
			refusal("missing", "A field is missing", []fault{
				{Type: "missing", Loc: []any{"body", "code"}, Msg: "code is required", Input: map[string]string{"stdin": "Ada"}},
			}),
			refusal("number", "A number that is not an integer", []fault{
				{Type: "int_type", Loc: []any{"body", "timeout_ms"}, Msg: "expected integer", Input: 5.5},
			}),
			refusal("path", "A path that leaves the workspace", []fault{
				{Type: "value_error", Loc: []any{"body", "files", 0, "path"}, Msg: `path must not contain ".."`, Input: "../x"},
			}),
			refusal("variable", "A name of a variable that is not allowed", []fault{
				{
					Type: "value_error", Loc: []any{"body", "env", "FOO-BAR"}, Input: nil,
					Msg: "env.FOO-BAR must have a name of ASCII letters, digits and _, with no digit first",
				},
			}),
			refusal("path", "A path that leaves the workspace", "File paths must not contain '..'."),
			refusal("timeout", "More than MAX_EXEC_TIMEOUT_MS", "timeout_ms exceeds maximum of 60000 ms"),
		}},
	}
}

type exampleEvent struct {
	name string
	data any
}

// stepsStream returns the stream of the program of the same name.
func stepsStream() string {
	finished := ended(0, "", "")
	finished.DurationMS = 1504
	return exampleStream(
		exampleEvent{"output", outputEvent{execution.Stdout, "step 0\n"}},
		exampleEvent{"output", outputEvent{execution.Stdout, "step 1\n"}},
		exampleEvent{"output", outputEvent{execution.Stdout, "step 2\n"}},
		exampleEvent{"output", outputEvent{execution.Stderr, "done\n"}},
		exampleEvent{"result", resultEvent{executeResponse: finished}},
	)
}

func exampleStream(events ...exampleEvent) string {
	var stream bytes.Buffer
	for _, event := range events {
		text, _ := encodeEvent(event.name, event.data) // these types can be encoded as JSON
		stream.Write(text)
	}
	return stream.String()
}

// streamContent describes a stream. OpenAPI 3.1 cannot describe its events: x-events has
// the schema of the data of each event, by the event's name.
func streamContent(api huma.API) map[string]*huma.MediaType {
	registry := api.OpenAPI().Components.Schemas
	return map[string]*huma.MediaType{wire.EventStream: {
		Schema: &huma.Schema{Type: huma.TypeString},
		Extensions: map[string]any{"x-events": map[string]*huma.Schema{
			"output": registry.Schema(reflect.TypeFor[outputEvent](), true, ""),
			"result": registry.Schema(reflect.TypeFor[resultEvent](), true, ""),
			"error":  registry.Schema(reflect.TypeFor[errorEvent](), true, ""),
		}},
	}}
}

// TransformSchema implements [huma.SchemaTransformer]: the library ignores embedded types
// that are not exported.
func (resultEvent) TransformSchema(registry huma.Registry, _ *huma.Schema) *huma.Schema {
	streamed := func(name string) bool { return name == "stdout" || name == "stderr" }
	schema := huma.SchemaFromType(registry, reflect.TypeFor[executeResponse]())
	for _, name := range schema.Required {
		if streamed(name) {
			delete(schema.Properties, name)
		}
	}
	schema.Required = slices.DeleteFunc(schema.Required, streamed)
	return schema
}
