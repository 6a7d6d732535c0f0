package httpapi

import (
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// The descriptions of the routes of files, which registerRaw registers.

const exampleSheet = "name,score\nAda,9\nGrace,8\n"

func jsonAnswer[T any](api huma.API) *huma.Response {
	schema := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")
	return &huma.Response{Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
}

// describeErrors adds a response for each status in the Errors of an operation.
func describeErrors(api huma.API, operation *huma.Operation) {
	for _, status := range append(operation.Errors, http.StatusInternalServerError) {
		response := jsonAnswer[apiError](api)
		response.Description = http.StatusText(status)
		operation.Responses[strconv.Itoa(status)] = response
	}
}

func uploadOperation(api huma.API) huma.Operation {
	form := &huma.Schema{
		Type: huma.TypeObject, Required: []string{"file"},
		Properties: map[string]*huma.Schema{"file": {Type: huma.TypeString, Format: "binary", Description: "any bytes, under any name"}},
	}
	return huma.Operation{
		OperationID: "upload-file", Method: http.MethodPost, Path: filesPath, Tags: []string{tagFiles},
		Summary:     "Upload a file",
		Description: "Stores one file. Use its file_id to stage or download it, unchanged, until it expires (FILE_TTL_SEC).",
		RequestBody: &huma.RequestBody{
			Description: "A form with the field file", Required: true,
			Content: map[string]*huma.MediaType{"multipart/form-data": {Schema: form}},
		},
		Responses: map[string]*huma.Response{"201": jsonAnswer[uploadedFile](api)},
		Errors: []int{
			http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusTooManyRequests,
			http.StatusInsufficientStorage,
		},
		Metadata: illustrate(uploadIllustration()),
	}
}

func uploadIllustration() illustration {
	return illustration{
		requests: []sample{{"sheet", "A small table", map[string]string{"file": exampleSheet}}},
		answers: map[int]answer{
			http.StatusCreated: {"The file is stored", []sample{
				{"stored", "Its identifier", uploadedFile{FileID: exampleFileID, Filename: "scores.csv", SizeBytes: int64(len(exampleSheet))}},
			}},
			http.StatusRequestEntityTooLarge: {"The file is too large", []sample{
				refusal("file", "More than MAX_FILE_SIZE_MB", fileTooLarge(100<<20)),
			}},
			http.StatusUnprocessableEntity: {"The form is not valid", []sample{
				refusal("missing", "The field is missing", []fault{
					{Type: "missing", Loc: []any{"body", "file"}, Msg: "the field file is required"},
				}),
			}},
			http.StatusInsufficientStorage: {"The file store is full", []sample{
				refusal("full", "More than FILE_STORE_MAX_MB",
					"The file store is full: all files together may have 4096 MB (FILE_STORE_MAX_MB). Delete files, or wait until some expire"),
			}},
		},
	}
}

func listOperation(api huma.API) huma.Operation {
	stored := listedFile{FileID: exampleFileID, Filename: "scores.csv", SizeBytes: int64(len(exampleSheet)), UploadTime: 1764000000.5}
	return huma.Operation{
		OperationID: "list-files", Method: http.MethodGet, Path: filesPath, Tags: []string{tagFiles},
		Summary: "List the files", Description: "Lists uploaded files and those that programs created, until they expire.",
		Responses: map[string]*huma.Response{"200": jsonAnswer[fileList](api)},
		Metadata: illustrate(illustration{answers: map[int]answer{http.StatusOK: {"The files, in no order", []sample{
			{"one", "One file", fileList{Files: []listedFile{stored}}},
			{"none", "No file", fileList{Files: []listedFile{}}},
		}}}}),
	}
}

// fileID returns the parameter in the path of a file.
func fileID() []*huma.Param {
	return []*huma.Param{{
		Name: "file_id", In: "path", Required: true, Description: "the file_id that the upload, a run or the list returned",
		Example: exampleFileID, Schema: &huma.Schema{Type: huma.TypeString},
	}}
}

// unknownFile returns the error that the routes of one file share.
func unknownFile() answer {
	return answer{"The file does not exist or has expired", []sample{
		refusal("unknown", "An unknown or expired file", "File with ID '"+exampleFileID+"' not found"),
	}}
}

func downloadOperation() huma.Operation {
	content := map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
	headers := map[string]*huma.Param{"Content-Disposition": {
		Description: "contains the name of the file", Schema: &huma.Schema{Type: huma.TypeString, Examples: []any{attachment("scores.csv")}},
	}}
	return huma.Operation{
		OperationID: "download-file", Method: http.MethodGet, Path: filesPath + "/{file_id}", Tags: []string{tagFiles},
		Summary: "Download a file", Description: "Returns the bytes of the file, as an attachment with its name.",
		Parameters: fileID(), Responses: map[string]*huma.Response{"200": {Content: content, Headers: headers}},
		Errors: []int{http.StatusNotFound},
		Metadata: illustrate(illustration{answers: map[int]answer{
			http.StatusOK:       {"The file's bytes", []sample{{"sheet", "A small table", exampleSheet}}},
			http.StatusNotFound: unknownFile(),
		}}),
	}
}

func deleteOperation() huma.Operation {
	return huma.Operation{
		OperationID: "delete-file", Method: http.MethodDelete, Path: filesPath + "/{file_id}", Tags: []string{tagFiles},
		Summary: "Delete a file", Description: "Deletes the file before it expires.",
		Parameters: fileID(), Responses: map[string]*huma.Response{"204": {}},
		Errors: []int{http.StatusNotFound},
		Metadata: illustrate(illustration{answers: map[int]answer{
			http.StatusNoContent: {about: "The file is deleted"},
			http.StatusNotFound:  unknownFile(),
		}}),
	}
}
