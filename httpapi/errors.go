package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// apiError is an error in FastAPI's shape, which clients know:
// {"detail": "a sentence"} or, for validation, {"detail": [{...}]}.
type apiError struct {
	Detail any `json:"detail" doc:"a sentence or, for 422, a list of faults"`

	status int
	header http.Header
}

// TransformSchema implements [huma.SchemaTransformer].
func (apiError) TransformSchema(registry huma.Registry, schema *huma.Schema) *huma.Schema {
	schema.Properties["detail"].OneOf = []*huma.Schema{
		{Type: huma.TypeString},
		{Type: huma.TypeArray, Items: registry.Schema(reflect.TypeFor[fault](), true, "")},
	}
	return schema
}

// fault is one fault of a request.
type fault struct {
	Type  string `json:"type" doc:"the kind of fault" example:"int_type"`
	Loc   []any  `json:"loc" nullable:"false" doc:"where it is: names of fields and indices of lists"`
	Msg   string `json:"msg"`
	Input any    `json:"input" doc:"what was sent there"`
}

func (e *apiError) Error() string {
	text, err := json.Marshal(e.Detail)
	if err != nil {
		return "an error"
	}
	return string(text)
}

// GetStatus implements [huma.StatusError].
func (e *apiError) GetStatus() int { return e.status }

// GetHeaders implements [huma.HeadersError].
func (e *apiError) GetHeaders() http.Header { return e.header }

// retryAfter is when a client that was refused may try again, in seconds: a
// run that waits is served in less.
const retryAfter = "1"

// statusCancelled is what a client that left would have got, by nginx's
// convention. It shows in the log alone.
const statusCancelled = 499

// toHTTP gives an error of the domain the shape of the contract. What users
// must not see goes to the log.
func toHTTP(ctx context.Context, opts Options, err error) error {
	domain := execution.AsError(err)
	out := &apiError{Detail: domain.Message, header: http.Header{}}
	switch domain.Code {
	case execution.Invalid:
		out.status = http.StatusUnprocessableEntity
		if len(domain.Fields) > 0 {
			out.Detail = faults(domain.Fields)
		}
	case execution.Unauthenticated:
		out.status = http.StatusUnauthorized
	case execution.NotFound:
		out.status = http.StatusNotFound
	case execution.TooLarge:
		out.status = http.StatusRequestEntityTooLarge
	case execution.StoreFull:
		out.status = http.StatusInsufficientStorage
	case execution.Busy:
		out.status = http.StatusTooManyRequests
		out.header.Set("Retry-After", retryAfter)
	case execution.Unavailable:
		out.status = http.StatusServiceUnavailable
		out.header.Set("Retry-After", retryAfter)
	case execution.Cancelled:
		out.status = statusCancelled
	case execution.Internal:
		out.status = http.StatusInternalServerError
		out.Detail = "internal error; the log of the server has more under request " + requestID(ctx)
	}
	if theirs := domain.Code == execution.Cancelled || domain.Code == execution.Unauthenticated; domain.Err != nil && !theirs {
		opts.Log.ErrorContext(ctx, "request failed", "request", requestID(ctx), "code", domain.Code, "error", domain.Err)
	}
	return out
}

func faults(fields []execution.FieldError) []fault {
	list := make([]fault, len(fields))
	for i, field := range fields {
		name := ""
		if last := len(field.Path) - 1; last >= 0 {
			name, _ = field.Path[last].(string)
		}
		list[i] = fault{
			Type: field.Type, Loc: append([]any{"body"}, field.Path...),
			Msg: strings.TrimSpace(name + " " + field.Message), Input: clip(field.Input),
		}
	}
	return list
}

//nolint:gochecknoinits // the library has no other place for it
func init() {
	huma.NewErrorWithContext = humaError
	// This one describes the shape in the API's document.
	huma.NewError = func(status int, message string, causes ...error) huma.StatusError {
		return humaError(nil, status, message, causes...)
	}
}

// humaError gives the library's own errors, those of parsing and validation,
// the shape of the contract.
func humaError(_ huma.Context, status int, message string, causes ...error) huma.StatusError {
	for _, cause := range causes {
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](cause); ok {
			return &apiError{status: http.StatusRequestEntityTooLarge, Detail: bodyTooLarge(tooLarge.Limit)}
		}
		if errors.Is(cause, errManyValues) {
			return &apiError{status: http.StatusUnprocessableEntity, Detail: []fault{
				{Type: "too_long", Loc: []any{"body"}, Msg: errManyValues.Error(), Input: nil},
			}}
		}
	}
	switch {
	case status == http.StatusBadRequest && message == "request body is required":
		return &apiError{status: http.StatusUnprocessableEntity, Detail: []fault{
			{Type: "missing", Loc: []any{"body"}, Msg: "the body is required", Input: nil},
		}}
	case status != http.StatusBadRequest && status != http.StatusUnprocessableEntity:
		if status == http.StatusUnsupportedMediaType {
			message = "Unsupported Media Type: Content-Type must be application/json"
		}
		return &apiError{status: status, Detail: message}
	}
	list := make([]fault, 0, len(causes))
	for _, cause := range causes {
		var detailer huma.ErrorDetailer
		if errors.As(cause, &detailer) {
			list = append(list, humaFault(detailer.ErrorDetail(), status == http.StatusBadRequest))
		}
	}
	return &apiError{status: http.StatusUnprocessableEntity, Detail: list}
}

// humaFault translates one fault. The library gives the location as
// "body.files[0].path" and says in the message alone what kind it is.
func humaFault(detail *huma.ErrorDetail, unparsed bool) fault {
	f := fault{Type: "value_error", Loc: location(detail.Location), Msg: detail.Message, Input: clip(detail.Value)}
	if property, ok := strings.CutPrefix(detail.Message, "expected required property "); ok {
		property = strings.TrimSuffix(property, " to be present")
		return fault{Type: "missing", Loc: append(f.Loc, property), Msg: property + " is required", Input: clip(detail.Value)}
	}
	if name, value, ok := wrongNumber(detail.Message); ok {
		return fault{Type: "int_type", Loc: append(f.Loc, name), Msg: "expected integer", Input: value}
	}
	if unparsed {
		return fault{Type: "json_invalid", Loc: f.Loc, Msg: "the body is not valid JSON: " + detail.Message, Input: clip(detail.Value)}
	}
	for start, kind := range map[string]string{
		"expected integer": "int_type", "expected number >=": "greater_than_equal", "expected number <=": "less_than_equal", "expected number": "float_type",
		"expected string": "string_type", "expected boolean": "bool_type", "expected array": "list_type",
		"expected object": "dict_type",
	} {
		if strings.HasPrefix(detail.Message, start) && (f.Type == "value_error" || len(start) > len("expected number")) {
			f.Type = kind
		}
	}
	return f
}

// wrongNumber reads what encoding/json says of a number that is integral but no
// integer of Go's, such as 5.0: "json: cannot unmarshal number 5.0 into Go
// struct field executeRequest.timeout_ms of type int64".
func wrongNumber(message string) (field string, value json.Number, ok bool) {
	rest, ok := strings.CutPrefix(message, "json: cannot unmarshal number ")
	if !ok {
		return "", "", false
	}
	number, rest, ok := strings.Cut(rest, " into Go struct field ")
	if !ok {
		return "", "", false
	}
	_, rest, _ = strings.Cut(rest, ".")
	field, _, _ = strings.Cut(rest, " ")
	return field, json.Number(number), true
}

// location splits "body.files[0].path" into its parts.
func location(text string) []any {
	parts := []any{}
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		if n, err := strconv.Atoi(part); err == nil {
			parts = append(parts, n)
		} else {
			parts = append(parts, part)
		}
	}
	return parts
}

// clip keeps an error, or the log, from repeating a long value.
func clip(value any) any {
	const most = 200
	text, ok := value.(string)
	if !ok {
		encoded, err := json.Marshal(value)
		if err != nil || len(encoded) <= most {
			return value
		}
		text = string(encoded)
	}
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

func bodyTooLarge(limit int64) string {
	return "request body exceeds maximum of " + strconv.FormatInt(limit>>20, 10) + " MB"
}

func writeDetail(w http.ResponseWriter, status int, detail string) {
	writeJSON(w, status, map[string]string{"detail": detail})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}
