package httpapi

import (
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// The descriptions of the routes of a session's files, which registerRaw registers.

func formatParam() *huma.Param {
	return &huma.Param{
		Name: "format", In: "query", Description: "tar returns a folder as a tar archive", Example: "tar",
		Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{"tar"}},
	}
}

func sessionParam() *huma.Param { return filePathParams()[0] }

func exampleListing() sessionListing {
	return sessionListing{
		Files: []sessionEntry{
			{"data", execution.KindFolder, 0, 1764000000.25}, {"data/scores.csv", execution.KindFile, int64(len(exampleSheet)), 1764000000.5},
		},
		SkippedFiles: []skippedFile{}, ExpiresAt: 1764000900.5,
	}
}

func fileErrors() []int {
	return []int{http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusServiceUnavailable}
}

// fileNotFound is the answer about an entry that does not exist.
func fileNotFound() answer {
	missing := sessionNotFound()
	missing.about = "The session or the file does not exist"
	missing.samples = append(missing.samples, refusal("file", "An unknown file", "File 'data/scores.csv' not found in the session"))
	return missing
}

func listSessionFilesOperation(api huma.API) huma.Operation {
	return huma.Operation{
		OperationID: "list-session-files", Method: http.MethodGet, Path: sessionFilesPath, Tags: []string{tagSessions},
		Summary: "List the files of a session",
		Description: "Lists the files, folders and links of the workspace, at most 10000, with those in folders. With format=tar, or " +
			"Accept: application/x-tar, the answer is a tar archive of the files and folders instead.",
		Parameters: []*huma.Param{sessionParam(), {
			Name: "path", In: "query", Description: "a folder, to list what it contains; or a file, to list that alone", Example: "data",
			Schema: &huma.Schema{Type: huma.TypeString},
		}, formatParam()},
		Responses: map[string]*huma.Response{"200": jsonAnswer[sessionListing](api)}, Errors: fileErrors(),
		Metadata: illustrate(illustration{answers: map[int]answer{
			http.StatusOK: {"The files, each folder before what it contains", []sample{
				{"some", "A folder with a file", exampleListing()},
				{"none", "No file", sessionListing{Files: []sessionEntry{}, SkippedFiles: []skippedFile{}, ExpiresAt: 1764000900.5}},
			}},
			http.StatusNotFound: fileNotFound(),
			http.StatusUnprocessableEntity: {"The request is not valid", []sample{refusal("path", "A path that leaves the workspace", []fault{
				{Type: "value_error", Loc: []any{"query", "path"}, Msg: `path must not contain ".."`, Input: "../x"},
			})}},
		}}),
	}
}

func archiveRequest() *huma.RequestBody {
	return &huma.RequestBody{Description: "A tar archive, not compressed", Required: true, Content: map[string]*huma.MediaType{
		tarType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
	}}
}

func unpackOperation() huma.Operation {
	return huma.Operation{
		OperationID: "unpack-session-files", Method: http.MethodPut, Path: sessionFilesPath, Tags: []string{tagSessions},
		Summary: "Unpack an archive into a session",
		Description: "Writes the files and folders of a tar archive to the workspace, all or none. They replace files of the same path. " +
			"An archive with links or devices is refused, and so is one with a name that leaves the workspace.",
		Parameters: []*huma.Param{sessionParam()}, RequestBody: archiveRequest(),
		Responses: map[string]*huma.Response{"204": {}}, Errors: append(fileErrors(), http.StatusRequestEntityTooLarge),
		Metadata: illustrate(illustration{
			requests: []sample{{"archive", "An archive", "data/scores.csv ..."}},
			answers: map[int]answer{
				http.StatusNoContent: {about: "The files are written"}, http.StatusNotFound: sessionNotFound(),
				http.StatusUnprocessableEntity: {"The archive is not valid", []sample{refusal("link", "A link", []fault{
					{Type: "value_error", Loc: []any{"body", "data/latest"}, Msg: "data/latest is a symbolic link, which is not unpacked", Input: "data/latest"},
				})}},
				http.StatusRequestEntityTooLarge: {"The files do not fit in the workspace", []sample{
					refusal("room", "More than WORKSPACE_LIMIT_MB", "files take more than the workspace of 64 MB holds"),
				}},
			},
		}),
	}
}

func deleteSessionFileOperation() huma.Operation {
	return huma.Operation{
		OperationID: "delete-session-file", Method: http.MethodDelete, Path: sessionFilePath, Tags: []string{tagSessions},
		Summary:     "Delete a file of a session",
		Description: "Deletes a file, a link, or a folder with all that it contains. Links are not followed.",
		Parameters:  filePathParams(), Responses: map[string]*huma.Response{"204": {}}, Errors: fileErrors(),
		Metadata: illustrate(illustration{answers: map[int]answer{
			http.StatusNoContent: {about: "The file is deleted"}, http.StatusNotFound: fileNotFound(), http.StatusUnprocessableEntity: pathRefusal(),
		}}),
	}
}

func renameFileOperation(api huma.API) huma.Operation {
	schema := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[renameFile](), true, "")
	return huma.Operation{
		OperationID: "rename-session-file", Method: http.MethodPatch, Path: sessionFilePath, Tags: []string{tagSessions},
		Summary: "Rename a file of a session",
		Description: "Renames a file, a link or a folder, and creates missing folders. A file may replace a file; nothing else is " +
			"replaced. Links are not followed.",
		Parameters:  filePathParams(),
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}},
		Responses:   map[string]*huma.Response{"204": {}},
		Errors:      append(fileErrors(), http.StatusRequestEntityTooLarge),
		Metadata: illustrate(illustration{
			requests: []sample{{"rename", "Another name", renameFile{Path: "data/results.csv"}}},
			answers: map[int]answer{
				http.StatusNoContent: {about: "The file is renamed"}, http.StatusNotFound: fileNotFound(),
				http.StatusRequestEntityTooLarge: runRefusals()[http.StatusRequestEntityTooLarge],
				http.StatusUnprocessableEntity: {"A path is not valid", []sample{refusal("path", "A path that leaves the workspace", []fault{
					{Type: "value_error", Loc: []any{"body", "path"}, Msg: `path must not contain ".."`, Input: "../x"},
				})}},
			},
		}),
	}
}

// filePathParams returns the parameters in the path of a session's file.
func filePathParams() []*huma.Param {
	text := &huma.Schema{Type: huma.TypeString}
	return []*huma.Param{
		{Name: "session_id", In: "path", Required: true, Description: "the session_id that creating the session returned", Example: exampleSessionID, Schema: text},
		{Name: "path", In: "path", Required: true, Description: "the path of the file, relative to the workspace; it may contain slashes", Example: "data/scores.csv", Schema: text},
	}
}

func pathRefusal() answer {
	return answer{"The path is not valid", []sample{refusal("path", "A path that leaves the workspace", []fault{
		{Type: "value_error", Loc: []any{"path", "path"}, Msg: `path must not contain ".."`, Input: "../x"},
	})}}
}

func readFileOperation() huma.Operation {
	content := map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
	return huma.Operation{
		OperationID: "read-session-file", Method: http.MethodGet, Path: sessionFilePath, Tags: []string{tagSessions},
		Summary: "Read a file of a session",
		Description: "Returns a regular file of the workspace, with its Content-Length and Last-Modified; HEAD returns these alone. Links are " +
			"not followed. With format=tar, or Accept: application/x-tar, the path is that of a folder, which is returned as a tar archive " +
			"with names relative to the folder; links and special files are left out. A path with a slash at its end returns the list of " +
			"that folder's files.",
		Parameters: append(filePathParams(), formatParam()), Responses: map[string]*huma.Response{"200": {Content: content}},
		Errors: []int{
			http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusTooManyRequests,
			http.StatusServiceUnavailable,
		},
		Metadata: illustrate(illustration{answers: map[int]answer{
			http.StatusOK:       {"The file's bytes", []sample{{"sheet", "A small table", exampleSheet}}},
			http.StatusNotFound: fileNotFound(), http.StatusUnprocessableEntity: pathRefusal(),
			http.StatusRequestEntityTooLarge: {"The file is larger than the workspace, because it is sparse", []sample{
				refusal("holes", "A sparse file", "it does not fit in the workspace of 64 MB"),
			}},
		}}),
	}
}

func writeFileOperation() huma.Operation {
	return huma.Operation{
		OperationID: "write-session-file", Method: http.MethodPut, Path: sessionFilePath, Tags: []string{tagSessions},
		Summary: "Write a file of a session",
		Description: "Creates or replaces a file of the workspace, and creates missing folders. The file is written whole or not at all. " +
			"The request must have a Content-Length. With Content-Type: application/x-tar, the body is a tar archive whose files and " +
			"folders are written to the folder of the path, all or none.",
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
				http.StatusNoContent: {about: "The file is written"}, http.StatusNotFound: sessionNotFound(),
				http.StatusUnprocessableEntity: pathRefusal(),
				http.StatusLengthRequired: {"The request has no Content-Length", []sample{
					refusal("length", "No Content-Length", "the request must have a Content-Length"),
				}},
				http.StatusRequestEntityTooLarge: {"The file does not fit in the workspace", []sample{
					refusal("room", "More than WORKSPACE_LIMIT_MB", "files take 104857600 bytes, more than the workspace of 64 MB holds"),
				}},
			},
		}),
	}
}
