package httpapi

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// The descriptions of the routes of sessions.

const exampleSessionID = "1f0c9a52d3b84e67a9d27f5c0e6b8a43"

func unknownSession() sample {
	return refusal("unknown", "An unknown or expired session", "Session '"+exampleSessionID+"' not found")
}

func sessionNotFound() answer {
	return answer{"The session does not exist or has expired", []sample{unknownSession()}}
}

func exampleSession() session { return session{SessionID: exampleSessionID, ExpiresAt: 1764000900.25} }

func createSessionOperation() huma.Operation {
	sheet, ttl := "bmFtZSxzY29yZQpBZGEsOQpHcmFjZSw4Cg==", int64(3600) // name,score Ada,9 Grace,8
	return huma.Operation{
		OperationID: "create-session", Method: http.MethodPost, Path: sessionsPath, Tags: []string{tagSessions},
		Summary: "Create a session", DefaultStatus: http.StatusCreated,
		Description: "Starts a sandbox that ends when no call was made for ttl_seconds. It has files, a shell, and one Python interpreter whose variables " +
			"and imports persist. The session survives a restart of the server.",
		Errors: runErrors(),
		Metadata: illustrate(illustration{
			requests: []sample{
				{"plain", "For 15 minutes", createSession{}},
				{"files", "For an hour, with a file", createSession{
					TTLSeconds: &ttl, Files: []inputFile{{Path: "scores.csv", ContentBase64: &sheet}},
				}},
			},
			answers: map[int]answer{
				http.StatusCreated:               {"The session is ready", []sample{{"plain", "For 15 minutes", createdSession{SessionID: exampleSessionID, ExpiresAt: exampleSession().ExpiresAt}}}},
				http.StatusNotFound:              runRefusals()[http.StatusNotFound],
				http.StatusRequestEntityTooLarge: runRefusals()[http.StatusRequestEntityTooLarge],
				http.StatusUnprocessableEntity: {"The request is not valid", []sample{refusal("ttl", "A ttl_seconds that is too large", []fault{
					{Type: "less_than_equal", Loc: []any{"body", "ttl_seconds"}, Msg: "expected number <= 86400", Input: 90000},
				})}},
				http.StatusTooManyRequests: {"The session limit is reached", []sample{
					refusal("sessions", "MAX_SESSIONS",
						"session limit reached (16, MAX_SESSIONS); end one, or wait until one expires"),
				}},
			},
		}),
	}
}

func listSessionsOperation() huma.Operation {
	return huma.Operation{
		OperationID: "list-sessions", Method: http.MethodGet, Path: sessionsPath, Tags: []string{tagSessions},
		Summary:     "List the sessions",
		Description: "Lists the sessions that exist, including those that another server on the same engine created.",
		Errors:      []int{http.StatusInternalServerError, http.StatusServiceUnavailable},
		Metadata: illustrate(illustration{answers: map[int]answer{http.StatusOK: {"The sessions, ordered by expires_at", []sample{
			{"one", "One session", sessionList{Sessions: []session{exampleSession()}}},
			{"none", "No session", sessionList{Sessions: []session{}}},
		}}}}),
	}
}

func extendSessionOperation() huma.Operation {
	return huma.Operation{
		OperationID: "extend-session", Method: http.MethodPatch, Path: sessionPath, Tags: []string{tagSessions},
		Summary: "Change how long a session lasts",
		Description: "Sets the time without a call after which the session ends, and starts it again. It does not wait for a call that " +
			"runs. No session gets older than SESSION_MAX_AGE_SEC.",
		Errors: []int{
			http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusTooManyRequests,
			http.StatusInternalServerError, http.StatusServiceUnavailable,
		},
		Metadata: illustrate(illustration{
			requests: []sample{{"hour", "Another hour", extendSession{TTLSeconds: 3600}}},
			answers: map[int]answer{
				http.StatusOK:                    {"The session, with its new end", []sample{{"hour", "Another hour", exampleSession()}}},
				http.StatusNotFound:              sessionNotFound(),
				http.StatusRequestEntityTooLarge: runRefusals()[http.StatusRequestEntityTooLarge],
				http.StatusUnprocessableEntity: {"The request is not valid", []sample{refusal("ttl", "A ttl_seconds that is too large", []fault{
					{Type: "less_than_equal", Loc: []any{"body", "ttl_seconds"}, Msg: "expected number <= 86400", Input: 90000},
				})}},
			},
		}),
	}
}

func deleteSessionOperation() huma.Operation {
	return huma.Operation{
		OperationID: "delete-session", Method: http.MethodDelete, Path: sessionPath, Tags: []string{tagSessions},
		Summary: "End a session", Description: "Ends the session and all that runs in it before it expires. Its files are deleted.",
		DefaultStatus: http.StatusNoContent,
		Errors:        []int{http.StatusNotFound, http.StatusInternalServerError, http.StatusServiceUnavailable},
		Metadata: illustrate(illustration{answers: map[int]answer{
			http.StatusNoContent: {about: "The session has ended"},
			http.StatusNotFound:  sessionNotFound(),
		}}),
	}
}

func bashOperation() huma.Operation {
	exit, short := 0, int64(500)
	return huma.Operation{
		OperationID: "session-bash", Method: http.MethodPost, Path: sessionPath + "/bash", Tags: []string{tagSessions},
		Summary: "Run a command",
		Description: "Runs a command in a new shell: files persist between calls, variables and the working directory do not. " +
			"Background processes of the command run until the session ends. args and env hold for this call only. " +
			"The calls of a session run one after the other. The default of timeout_ms is 30000, or the server's limit if that is less.",
		Errors: runErrors(),
		Metadata: illustrate(illustration{
			requests: []sample{
				{"list", "Write a file and list the workspace", bashRequest{Cmd: "echo hello > greeting.txt; ls"}},
				{"environment", "Environment variables and arguments", bashRequest{
					Cmd: `echo "$GREETING, $1!"`, Args: []string{"Ada"}, Env: map[string]string{"GREETING": "Hello"},
				}},
				{"timeout", "A command that does not end", bashRequest{Cmd: "sleep 60", TimeoutMS: &short}},
			},
			answers: map[int]answer{
				http.StatusOK: {"The command ran; end has the reason for its end", []sample{
					{"list", "Write a file and list the workspace", bashResponse{
						Stdout: "greeting.txt\n", ExitCode: &exit, DurationMS: 4, End: end{Reason: execution.Exited},
						Usage: usage{CPUMS: 3, PeakMemoryBytes: 3932160},
					}},
					{"environment", "Environment variables and arguments", bashResponse{
						Stdout: "Hello, Ada!\n", ExitCode: &exit, DurationMS: 4, End: end{Reason: execution.Exited},
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
		Description: "Runs the request of /v1/execute in the session's interpreter, whose variables, imports, open figures and " +
			"threads persist, also after an exception. At its timeout a program is interrupted with KeyboardInterrupt; " +
			"if it has not ended 2 s later, the interpreter is killed and state_lost is true. " +
			"files are added to the workspace and replace files with the same path. args and env hold for this call: afterwards " +
			"sys.argv and os.environ are as before, except what the program itself has replaced.",
		Errors: runErrors(), Metadata: illustrate(sessionExecuteIllustration()),
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
	i.answers[http.StatusOK] = answer{"The program ran; end has the reason for its end", []sample{
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
		Description: "As the route without /stream, with the events of /v1/execute/stream.",
		Errors:      runErrors(), Metadata: illustrate(i),
		Responses: map[string]*huma.Response{"200": {Content: streamContent(api)}},
	}
}
