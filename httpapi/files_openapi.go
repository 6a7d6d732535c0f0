package httpapi

import (
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// The descriptions of the routes that are no operations of the library's.

func jsonAnswer[T any](api huma.API, description string) *huma.Response {
	schema := huma.SchemaFromType(api.OpenAPI().Components.Schemas, reflect.TypeFor[T]())
	return &huma.Response{Description: description, Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
}

// describeErrors adds the answers for the statuses in an operation's Errors.
func describeErrors(api huma.API, operation *huma.Operation) {
	for _, status := range operation.Errors {
		operation.Responses[strconv.Itoa(status)] = jsonAnswer[apiError](api, http.StatusText(status))
	}
}

func uploadOperation(api huma.API) huma.Operation {
	form := &huma.Schema{
		Type: huma.TypeObject, Required: []string{"file"},
		Properties: map[string]*huma.Schema{"file": {Type: huma.TypeString, Format: "binary", Description: "any bytes"}},
	}
	return huma.Operation{
		OperationID: "upload-file", Method: http.MethodPost, Path: filesPath,
		Summary: "Upload a file", Description: "Its bytes come back as they are, until it expires.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"multipart/form-data": {Schema: form}}},
		Responses:   map[string]*huma.Response{"201": jsonAnswer[uploadedFile](api, "The file is stored")},
		Errors: []int{
			http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusInsufficientStorage,
		},
	}
}

func listOperation(api huma.API) huma.Operation {
	return huma.Operation{
		OperationID: "list-files", Method: http.MethodGet, Path: filesPath, Summary: "List the files",
		Responses: map[string]*huma.Response{"200": jsonAnswer[fileList](api, "The files, in no order")},
	}
}

// fileID is the parameter of a file's own path.
func fileID() []*huma.Param {
	return []*huma.Param{{Name: "file_id", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}}}
}

func downloadOperation() huma.Operation {
	content := map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
	return huma.Operation{
		OperationID: "download-file", Method: http.MethodGet, Path: filesPath + "/{file_id}", Summary: "Download a file",
		Parameters: fileID(), Responses: map[string]*huma.Response{"200": {Description: "The file's bytes", Content: content}},
		Errors: []int{http.StatusNotFound},
	}
}

func deleteOperation() huma.Operation {
	return huma.Operation{
		OperationID: "delete-file", Method: http.MethodDelete, Path: filesPath + "/{file_id}", Summary: "Delete a file",
		Parameters: fileID(), Responses: map[string]*huma.Response{"204": {Description: "The file is gone"}},
		Errors: []int{http.StatusNotFound},
	}
}
