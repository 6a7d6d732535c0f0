package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/wire"
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

// retryAfter is the time after which a refused client may try again, in seconds. A
// waiting run is served in less.
const retryAfter = "1"

// statusCancelled is nginx's status for a client that left. It appears only in the log.
const statusCancelled = 499

// toHTTP returns an error of the domain in the shape of the contract. It logs details
// that users must not see.
func (a *api) toHTTP(ctx context.Context, err error) error {
	if shaped, ok := errors.AsType[*apiError](err); ok {
		return shaped
	}
	domain := execution.AsError(err)
	out := &apiError{status: statusOf(domain.Code), Detail: domain.Message, header: http.Header{}}
	switch domain.Code {
	case execution.Invalid:
		if len(domain.Fields) > 0 {
			out.Detail = bodyDetail(domain.Fields)
		}
	case execution.Busy, execution.Overloaded, execution.Unavailable:
		out.header.Set("Retry-After", retryAfter)
	case execution.Internal:
		out.Detail = "internal error; the log of the server has more under request " + requestID(ctx)
	case execution.NotFound, execution.Unauthenticated, execution.TooLarge, execution.StoreFull, execution.Cancelled:
	}
	if theirs := domain.Code == execution.Cancelled || domain.Code == execution.Unauthenticated; domain.Err != nil && !theirs {
		a.opts.Log.ErrorContext(ctx, "request failed", "request", requestID(ctx), "code", domain.Code, "error", domain.Err)
	}
	return out
}

// statusOf returns the status for an error's code.
func statusOf(code execution.Code) int {
	switch code {
	case execution.Invalid:
		return http.StatusUnprocessableEntity
	case execution.Unauthenticated:
		return http.StatusUnauthorized
	case execution.NotFound:
		return http.StatusNotFound
	case execution.TooLarge:
		return http.StatusRequestEntityTooLarge
	case execution.StoreFull:
		return http.StatusInsufficientStorage
	case execution.Busy:
		return http.StatusTooManyRequests
	case execution.Unavailable, execution.Overloaded:
		return http.StatusServiceUnavailable
	case execution.Cancelled:
		return statusCancelled
	case execution.Internal:
	}
	return http.StatusInternalServerError
}

// inQuery is the locator of a request for the files of a session.
func inQuery(f execution.FieldError) []any {
	if f.Field == execution.FieldPath {
		return []any{"query", "path"}
	}
	return inURL(f)
}

// faultType returns the contract's name of a fault, which is Pydantic's.
func faultType(f execution.Fault) string {
	switch f {
	case execution.FaultTooSmall:
		return "greater_than_equal"
	case execution.FaultTooLarge:
		return "less_than_equal"
	case execution.FaultValue, execution.FaultAbsolute, execution.FaultParent:
	}
	return "value_error"
}

// sentence returns the whole detail of a request with a fault that has a sentence of its
// own in the contract, and "" for other faults.
func sentence(f execution.FieldError) string {
	switch {
	case f.Field == execution.FieldTimeout && f.Fault == execution.FaultTooLarge:
		return fmt.Sprintf("timeout_ms exceeds maximum of %d ms", f.Limit.Milliseconds())
	case f.Fault == execution.FaultAbsolute:
		return "File paths must be relative."
	case f.Fault == execution.FaultParent:
		return "File paths must not contain '..'."
	}
	return ""
}

// bodyDetail returns the detail of a request whose body has faults. The first one that has
// a sentence of its own stands for all: the contract knows no others beside it.
func bodyDetail(fields []execution.FieldError) any {
	for _, field := range fields {
		if text := sentence(field); text != "" {
			return text
		}
	}
	return invalidDetail(fields, inBody)
}

// invalidDetail returns the list of the faults of a request.
func invalidDetail(fields []execution.FieldError, locate locator) any {
	fields, more := execution.FirstFaults(fields)
	list := make([]fault, len(fields), len(fields)+1)
	for i, field := range fields {
		list[i] = newFault(faultType(field.Fault), field.Message, field.Value, locate(field)...)
		if field.Field == execution.FieldEnv || field.Field == execution.FieldArgs {
			list[i].Msg = field.Part() + " " + field.Message
		}
	}
	return withMore(list, more)
}

// newFault returns a fault of the field at loc. The message follows the field's name.
func newFault(kind, message string, input any, loc ...any) fault {
	return fault{Type: kind, Loc: loc, Msg: fmt.Sprint(loc[len(loc)-1], " ", message), Input: clip(input)}
}

// unprocessable returns the answer to a request with faults.
func unprocessable(faults ...fault) *apiError {
	return &apiError{status: http.StatusUnprocessableEntity, Detail: faults}
}

//nolint:gochecknoinits // the library has no other hook
func init() {
	huma.NewErrorWithContext = humaError
	huma.ValidateStrictCasing = true
	// The library uses this one to describe the shape in the API's description.
	huma.NewError = func(status int, message string, causes ...error) huma.StatusError {
		return humaError(nil, status, message, causes...)
	}
}

// humaError returns the library's errors, those of parsing and validation, in the shape
// of the contract.
func humaError(ctx huma.Context, status int, message string, causes ...error) huma.StatusError {
	for _, cause := range causes {
		if refused := bodyFault(cause); refused != nil {
			if after := refused.header.Get("Retry-After"); after != "" && ctx != nil {
				ctx.SetHeader("Retry-After", after) // the library writes only the headers of handlers' errors
			}
			return refused
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
	causes, more := execution.FirstFaults(causes)
	list := make([]fault, 0, len(causes)+1)
	for _, cause := range causes {
		var detailer huma.ErrorDetailer
		if errors.As(cause, &detailer) {
			list = append(list, humaFault(detailer.ErrorDetail(), status == http.StatusBadRequest))
		}
	}
	return &apiError{status: http.StatusUnprocessableEntity, Detail: withMore(list, more)}
}

// bodyFault returns the answer for a body that could not be read to its end, or nil for
// other errors.
func bodyFault(cause error) *apiError {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](cause); ok {
		return &apiError{status: http.StatusRequestEntityTooLarge, Detail: bodyTooLarge(tooLarge.Limit)}
	}
	if errors.Is(cause, errBroken) {
		return brokenBody()
	}
	if limit, ok := errors.AsType[wire.LimitError](cause); ok {
		return &apiError{status: http.StatusUnprocessableEntity, Detail: []fault{
			{Type: "too_long", Loc: []any{"body"}, Msg: limit.Error(), Input: nil},
		}}
	}
	if domain, ok := errors.AsType[*execution.Error](cause); ok && statusOf(domain.Code) != http.StatusInternalServerError {
		shaped := &apiError{status: statusOf(domain.Code), Detail: domain.Message, header: http.Header{}}
		shaped.header.Set("Retry-After", retryAfter)
		return shaped
	}
	return nil
}

func brokenBody() *apiError {
	return &apiError{status: http.StatusBadRequest, Detail: errBroken.Error()}
}

// withMore appends the number of further faults to a list of faults.
func withMore(list []fault, more int) []fault {
	if more > 0 {
		list = append(list, fault{Type: "too_many", Loc: []any{"body"}, Msg: fmt.Sprintf("and %d more faults", more), Input: nil})
	}
	return list
}

// humaFault translates one fault of the library's. Its location has the form
// "body.files[0].path", and only its message has the kind.
func humaFault(detail *huma.ErrorDetail, unparsed bool) fault {
	detail.Value = withoutSecrets(detail.Location, detail.Value)
	f := fault{Type: "value_error", Loc: location(detail.Location), Msg: execution.Clip(detail.Message), Input: clip(detail.Value)}
	if property, ok := strings.CutPrefix(detail.Message, "expected required property "); ok {
		property = strings.TrimSuffix(property, " to be present")
		return fault{Type: "missing", Loc: append(f.Loc, property), Msg: property + " is required", Input: clip(detail.Value)}
	}
	if path, value, ok := strings.Cut(detail.Message, notIntegerText); ok {
		return fault{Type: "int_type", Loc: append(f.Loc, location(path)...), Msg: "expected integer", Input: json.Number(value)}
	}
	if detail.Message == validation.MsgExpectedMatchAtLeastOneSchema { // only booleans have several
		return boolFault(detail.Value, f.Loc...)
	}
	if unparsed {
		return fault{Type: "json_invalid", Loc: f.Loc, Msg: "the body is not valid JSON: " + f.Msg, Input: clip(detail.Value)}
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

// location splits "body.files[0].path" into its parts.
func location(text string) []any {
	if name, ok := strings.CutPrefix(text, "body."+envField+"."); ok {
		return []any{"body", envField, execution.Clip(name)}
	}
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

// clip shortens a value of any type to what an answer may repeat.
func clip(value any) any {
	if text, ok := value.(string); ok {
		return execution.Clip(text)
	}
	room := clippedParts
	encoded, err := json.Marshal(abridged(value, &room))
	if err != nil || room > 0 && len(encoded) <= clippedBytes {
		return value
	}
	return execution.Clip(string(encoded))
}

// clippedBytes is the longest JSON of a value that an answer repeats unchanged.
// clippedParts bounds the work to encode it.
const clippedBytes, clippedParts = 200, 200

// abridged returns the beginning of a decoded value, of about room parts and characters.
func abridged(value any, room *int) any {
	*room--
	switch value := value.(type) {
	case string:
		*room -= len(value)
		return execution.Clip(value)
	case json.Number:
		*room -= len(value)
		return execution.Clip(string(value))
	case []any:
		var short []any
		for _, one := range value {
			if short = append(short, abridged(one, room)); *room <= 0 {
				break
			}
		}
		return short
	case map[string]any:
		short := make(map[string]any)
		for name, one := range value {
			*room -= len(name)
			if short[execution.Clip(name)] = abridged(one, room); *room <= 0 {
				break
			}
		}
		return short
	}
	return value
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
