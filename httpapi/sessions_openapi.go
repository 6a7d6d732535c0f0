package httpapi

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// The descriptions of the routes of sessions.

const exampleSessionID = "1f0c9a52d3b84e67a9d27f5c0e6b8a43"

// callErrors are the statuses with which a call of a session is refused.
func callErrors() []int { return runErrors() }

func unknownSession() sample {
	return refusal("unknown", "An unknown or expired session", "Session '"+exampleSessionID+"' not found")
}

func sessionNotFound() answer {
	return answer{"There is no such session, or it has expired", []sample{unknownSession()}}
}

func exampleSession() session { return session{SessionID: exampleSessionID, ExpiresAt: 1764000901} }

func createSessionOperation() huma.Operation {
	sheet, ttl := "bmFtZSxzY29yZQpBZGEsOQpHcmFjZSw4Cg==", int64(3600) // name,score Ada,9 Grace,8
	return huma.Operation{
		OperationID: "create-session", Method: http.MethodPost, Path: sessionsPath, Tags: []string{tagSessions},
		Summary: "Create a session", DefaultStatus: http.StatusCreated,
		Description: "Starts a sandbox that lives for ttl_seconds, whatever happens meanwhile: with one Python interpreter, " +
			"whose variables and imports persist, a shell, and files. The server may be restarted; the session goes on.",
		Errors: runErrors(),
		Metadata: illustrate(illustration{
			requests: []sample{
				{"plain", "For 15 minutes", createSession{}},
				{"files", "For an hour, with a file", createSession{
					TTLSeconds: &ttl, Files: []inputFile{{Path: "scores.csv", ContentBase64: &sheet}},
				}},
			},
			answers: map[int]answer{
				http.StatusCreated:               {"The session takes calls", []sample{{"plain", "For 15 minutes", exampleSession()}}},
				http.StatusNotFound:              runRefusals()[http.StatusNotFound],
				http.StatusRequestEntityTooLarge: runRefusals()[http.StatusRequestEntityTooLarge],
				http.StatusUnprocessableEntity: {"The request is not valid", []sample{refusal("ttl", "A life that is too long", []fault{
					{Type: "less_than_equal", Loc: []any{"body", "ttl_seconds"}, Msg: "expected number <= 86400", Input: 90000},
				})}},
				http.StatusTooManyRequests: {"There are as many sessions as may be", []sample{
					refusal("sessions", "MAX_SESSIONS",
						"there are 16 sessions, as many as there may be (MAX_SESSIONS); end one, or wait until one expires"),
				}},
			},
		}),
	}
}

func listSessionsOperation() huma.Operation {
	return huma.Operation{
		OperationID: "list-sessions", Method: http.MethodGet, Path: sessionsPath, Tags: []string{tagSessions},
		Summary:     "List the sessions",
		Description: "Lists the sessions that run, those of earlier servers and of other ones on the same engine among them.",
		Errors:      []int{http.StatusInternalServerError, http.StatusServiceUnavailable},
		Metadata: illustrate(illustration{answers: map[int]answer{http.StatusOK: {"The sessions, the one that expires first before the others", []sample{
			{"one", "One session", sessionList{Sessions: []session{exampleSession()}}},
			{"none", "No session", sessionList{Sessions: []session{}}},
		}}}}),
	}
}

func deleteSessionOperation() huma.Operation {
	return huma.Operation{
		OperationID: "delete-session", Method: http.MethodDelete, Path: sessionPath, Tags: []string{tagSessions},
		Summary: "End a session", Description: "Ends it before it expires, with what runs in it. Its files are gone.",
		DefaultStatus: http.StatusNoContent,
		Errors:        []int{http.StatusNotFound, http.StatusInternalServerError, http.StatusServiceUnavailable},
		Metadata: illustrate(illustration{answers: map[int]answer{
			http.StatusNoContent: {about: "The session is gone"},
			http.StatusNotFound:  sessionNotFound(),
		}}),
	}
}

func bashOperation() huma.Operation {
	exit, short := 0, int64(500)
	return huma.Operation{
		OperationID: "session-bash", Method: http.MethodPost, Path: sessionPath + "/bash", Tags: []string{tagSessions},
		Summary: "Run a command",
		Description: "Runs a command in a shell of its own: files persist between calls, variables and the working directory do not. " +
			"What the command puts in the background lives on until the session ends. " +
			"Calls of a session come one after the other. timeout_ms is 30000 unless it is given or the server allows less.",
		Errors: callErrors(),
		Metadata: illustrate(illustration{
			requests: []sample{
				{"list", "Write a file and list the workspace", bashRequest{Cmd: "echo hello > greeting.txt; ls"}},
				{"timeout", "A command that does not end", bashRequest{Cmd: "sleep 60", TimeoutMS: &short}},
			},
			answers: map[int]answer{
				http.StatusOK: {"The command ran; end says how it ended", []sample{
					{"list", "Write a file and list the workspace", bashResponse{
						Stdout: "greeting.txt\n", ExitCode: &exit, DurationMS: 4, End: end{Reason: execution.Exited},
						Usage: usage{CPUMS: 3, PeakMemoryBytes: 3932160},
					}},
					{"timeout", "A command that does not end", bashResponse{
						TimedOut: true, DurationMS: 503, End: end{Reason: execution.Timeout, Message: "stopped after 500 ms"},
						Usage: usage{CPUMS: 2, PeakMemoryBytes: 3932160},
					}},
				}},
				http.StatusNotFound: sessionNotFound(),
				http.StatusUnprocessableEntity: {"The request is not valid", []sample{refusal("missing", "A field is missing", []fault{
					{Type: "missing", Loc: []any{"body", "cmd"}, Msg: "cmd is required", Input: map[string]string{}},
				})}},
				http.StatusRequestEntityTooLarge: runRefusals()[http.StatusRequestEntityTooLarge],
			},
		}),
	}
}

func sessionExecuteOperation() huma.Operation {
	return huma.Operation{
		OperationID: "session-execute", Method: http.MethodPost, Path: sessionPath + "/execute", Tags: []string{tagSessions},
		Summary: "Run Python in a session",
		Description: "Takes what /v1/execute takes and runs it in the session's interpreter, whose variables, imports, open figures and " +
			"threads persist, after an exception as well. At its timeout a program is interrupted with KeyboardInterrupt; " +
			"if it does not heed that within 2 s, the interpreter is ended and state_lost says so. " +
			"files are staged in the workspace as it is, and replace those of their names.",
		Errors: callErrors(), Metadata: illustrate(sessionExecuteIllustration()),
	}
}

func sessionExecuteIllustration() illustration {
	i := executeIllustration()
	count := ended(0, "1\n", "")
	i.requests = []sample{
		{"count", "A variable that persists", executeRequest{Code: "try:\n    count += 1\nexcept NameError:\n    count = 1\ncount"}},
		{"failure", "A program that fails", executeRequest{Code: "1 / 0"}},
	}
	failed := ended(1, "", `Traceback (most recent call last):
  File "<cell 2>", line 1, in <module>
    1 / 0
    ~~^~~
ZeroDivisionError: division by zero
`)
	i.answers[http.StatusOK] = answer{"The program ran; end says how it ended", []sample{
		{"count", "A variable that persists", count}, {"failure", "A program that fails", failed},
	}}
	i.answers[http.StatusNotFound] = sessionNotFound()
	return i
}

func sessionStreamOperation(api huma.API) huma.Operation {
	i := streamIllustration()
	i.answers[http.StatusNotFound] = sessionNotFound()
	return huma.Operation{
		OperationID: "session-execute-stream", Method: http.MethodPost, Path: sessionPath + "/execute/stream", Tags: []string{tagSessions},
		Summary:     "Run Python in a session and stream its output",
		Description: "As the route without /stream, and with the events of /v1/execute/stream.",
		Errors:      callErrors(), Metadata: illustrate(i),
		Responses: map[string]*huma.Response{"200": {Content: streamContent(api)}},
	}
}

// filePathParams are the parameters of a session's file.
func filePathParams() []*huma.Param {
	text := &huma.Schema{Type: huma.TypeString}
	return []*huma.Param{
		{Name: "session_id", In: "path", Required: true, Description: "what creating the session has told", Example: exampleSessionID, Schema: text},
		{Name: "path", In: "path", Required: true, Description: "relative to the workspace; it may have slashes", Example: "data/scores.csv", Schema: text},
	}
}

func pathRefusal() answer {
	return answer{"The path cannot be used", []sample{refusal("path", "A path that leaves the workspace", []fault{
		{Type: "value_error", Loc: []any{"path", "path"}, Msg: `path must not contain ".."`, Input: "../x"},
	})}}
}

func readFileOperation() huma.Operation {
	content := map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
	missing := sessionNotFound()
	missing.about = "There is no such session or file"
	missing.samples = append(missing.samples, refusal("file", "No such file", "File 'data/scores.csv' not found in the session"))
	return huma.Operation{
		OperationID: "read-session-file", Method: http.MethodGet, Path: sessionPath + "/files/{path}", Tags: []string{tagSessions},
		Summary: "Read a file of a session", Description: "Gives a regular file of the workspace as it is now. Links are not followed.",
		Parameters: filePathParams(), Responses: map[string]*huma.Response{"200": {Content: content}},
		Errors: []int{
			http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusTooManyRequests,
			http.StatusServiceUnavailable,
		},
		Metadata: illustrate(illustration{answers: map[int]answer{
			http.StatusOK:       {"The file's bytes", []sample{{"sheet", "A small table", exampleSheet}}},
			http.StatusNotFound: missing, http.StatusUnprocessableEntity: pathRefusal(),
			http.StatusRequestEntityTooLarge: {"The file is larger than the workspace: it has holes", []sample{
				refusal("holes", "A file with holes", "it does not fit in the workspace of 64 MB"),
			}},
		}}),
	}
}

func writeFileOperation() huma.Operation {
	return huma.Operation{
		OperationID: "write-session-file", Method: http.MethodPut, Path: sessionPath + "/files/{path}", Tags: []string{tagSessions},
		Summary: "Write a file of a session",
		Description: "Makes or replaces a file of the workspace, and the folders that it needs. It is there when all of it has come, " +
			"and nothing of it otherwise. The request must have a Content-Length.",
		Parameters: filePathParams(),
		RequestBody: &huma.RequestBody{Description: "The file's bytes", Required: true, Content: map[string]*huma.MediaType{
			"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
		}},
		Responses: map[string]*huma.Response{"204": {}},
		Errors: []int{
			http.StatusNotFound, http.StatusLengthRequired, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity,
			http.StatusTooManyRequests, http.StatusServiceUnavailable,
		},
		Metadata: illustrate(illustration{
			requests: []sample{{"sheet", "A small table", exampleSheet}},
			answers: map[int]answer{
				http.StatusNoContent: {about: "The file is there"}, http.StatusNotFound: sessionNotFound(),
				http.StatusUnprocessableEntity: pathRefusal(),
				http.StatusLengthRequired: {"The request has no Content-Length", []sample{
					refusal("length", "No Content-Length", "the request must have a Content-Length"),
				}},
				http.StatusRequestEntityTooLarge: {"The workspace has no room for it", []sample{
					refusal("room", "More than WORKSPACE_LIMIT_MB", "files take 104857600 bytes, more than the workspace of 64 MB holds"),
				}},
			},
		}),
	}
}
