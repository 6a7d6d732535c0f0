package mcp

import (
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// The arguments of the tools. A field's tag is the argument's name.
type (
	pythonArguments struct {
		Code      *string     `json:"code"`
		Session   *string     `json:"session"`
		Files     []inputFile `json:"files"`
		TimeoutMS *int64      `json:"timeout_ms"`
		Stdin     string      `json:"stdin"`
		Args      []string    `json:"args"`
	}
	inputFile struct {
		Path          string  `json:"path"`
		Content       *string `json:"content"`
		ContentBase64 *string `json:"content_base64"`
		FileID        *string `json:"file_id"`
	}
	bashArguments struct {
		Session   *string `json:"session"`
		Command   *string `json:"command"`
		TimeoutMS *int64  `json:"timeout_ms"`
	}
	readArguments struct {
		Session  *string `json:"session"`
		Path     *string `json:"path"`
		Encoding *string `json:"encoding"`
	}
	writeArguments struct {
		Session       *string `json:"session"`
		Path          *string `json:"path"`
		Content       *string `json:"content"`
		ContentBase64 *string `json:"content_base64"`
	}
	listArguments struct {
		Session *string `json:"session"`
		Path    string  `json:"path"`
	}
	endArguments struct {
		Session *string `json:"session"`
	}
)

// required is a string that a call must have, with its description for errors.
type required struct{ name, what string }

// parse decodes a call's arguments into a struct. It rejects unknown arguments, because a model
// would not notice that it has misspelled one, and missing ones.
func parse(raw, into any, needed ...required) error {
	given, ok := raw.(map[string]any)
	if !ok && raw != nil {
		return invalid("arguments must be an object")
	}
	if err := checkNames("argument", given, names(into)); err != nil {
		return err
	}
	if given["session"] == "" { // some models fill in arguments that they mean to leave out
		given = maps.Clone(given)
		delete(given, "session")
	}
	for _, argument := range needed {
		switch value := given[argument.name].(type) {
		case string:
		case nil:
			return invalid(fmt.Sprintf("the argument %s is required: %s, as a string", argument.name, argument.what))
		default:
			return wrongType(argument.name, kindOf(value), "string")
		}
	}
	return decode("", given, into)
}

// kindOf returns the name of a value's type in JSON.
func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "bool"
	case float64:
		return "number"
	case string:
		return "string"
	case []any:
		return "array"
	}
	return "object"
}

func wrongType(name, is, wanted string) error {
	return invalid(fmt.Sprintf("%s is %s: must be %s", name, withArticle(is), withArticle(wanted)))
}

func withArticle(noun string) string {
	switch {
	case noun == "null":
		return noun
	case strings.ContainsRune("aeiou", rune(noun[0])):
		return "an " + noun
	}
	return "a " + noun
}

// names returns the names of a struct's fields in JSON.
func names(into any) []string {
	var names []string
	for _, field := range reflect.VisibleFields(reflect.TypeOf(into).Elem()) {
		names = append(names, field.Tag.Get("json"))
	}
	return names
}

func checkNames(what string, given map[string]any, known []string) error {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(known, name) {
			return invalid(fmt.Sprintf("unknown %s %q: the known ones are %s", what, execution.Clip(name), strings.Join(known, ", ")))
		}
	}
	return nil
}

// decode sets the fields of a struct from an object. An error names the field of the wrong type,
// after a prefix. No text is copied: to encode and decode the object once more would take many
// times its memory.
func decode(prefix string, given map[string]any, into any) error {
	fields := reflect.ValueOf(into).Elem()
	for i := range fields.NumField() {
		name := fields.Type().Field(i).Tag.Get("json")
		if given[name] == nil {
			continue
		}
		if err := set(prefix+name, fields.Field(i), given[name]); err != nil {
			return err
		}
	}
	return nil
}

func set(name string, field reflect.Value, value any) error {
	if field.Kind() == reflect.Pointer {
		field.Set(reflect.New(field.Type().Elem()))
		field = field.Elem()
	}
	text, isText := value.(string)
	number, isNumber := value.(float64)
	list, isList := value.([]any)
	switch kind := field.Kind(); {
	case kind == reflect.String && isText:
		field.SetString(text)
	case kind == reflect.Int64 && isNumber && number == math.Trunc(number) && math.Abs(number) < 1<<63:
		field.SetInt(int64(number))
	case kind == reflect.Int64 && isNumber:
		return wrongType(name, fmt.Sprintf("number %v", number), "integer")
	case kind == reflect.Slice && isList:
		return setList(name, field, list)
	default:
		return wrongType(name, kindOf(value), typeName(kind))
	}
	return nil
}

// setList sets a list of objects or of strings.
func setList(name string, field reflect.Value, list []any) error {
	field.Set(reflect.MakeSlice(field.Type(), len(list), len(list)))
	for i, value := range list {
		element, into := fmt.Sprintf("%s[%d]", name, i), field.Index(i).Addr().Interface()
		if field.Type().Elem().Kind() == reflect.String {
			if err := set(element, field.Index(i), value); err != nil {
				return err
			}
			continue
		}
		object, ok := value.(map[string]any)
		if !ok {
			return wrongType(element, kindOf(value), "object")
		}
		if err := checkNames("field of "+element, object, names(into)); err != nil {
			return err
		}
		if err := decode(element+".", object, into); err != nil {
			return err
		}
	}
	return nil
}

func typeName(kind reflect.Kind) string {
	switch kind {
	case reflect.Int64:
		return "integer"
	case reflect.Slice:
		return "array"
	default:
		return kind.String()
	}
}

// timeout converts timeout_ms.
func (s *Server) timeout(given *int64) (time.Duration, error) {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	switch {
	case given == nil:
		return s.defaultTimeout(), nil
	case *given < 1:
		return 0, invalid(fmt.Sprintf("timeout_ms is %d: must be at least 1", *given))
	}
	return time.Duration(min(*given, most)) * time.Millisecond, nil
}

// content returns the bytes of a file from its text or its base64.
func content(text, encoded *string) ([]byte, error) {
	if text != nil {
		return []byte(*text), nil
	}
	data, err := base64.StdEncoding.DecodeString(*encoded)
	if err != nil {
		return nil, fmt.Errorf("content_base64 must be standard base64: %w", err)
	}
	return data, nil
}

// count returns how many arguments are present.
func count(given ...*string) int {
	n := 0
	for _, text := range given {
		if text != nil {
			n++
		}
	}
	return n
}

// writeFileTool is the name of the tool that writes a file.
const writeFileTool = "write_file"

// describeFault describes a fault with the name of the tool's argument.
func describeFault(tool string, f execution.FieldError) string {
	switch f.Field {
	case execution.FieldTimeout:
		if f.Fault == execution.FaultTooLarge {
			return fmt.Sprintf("timeout_ms exceeds maximum of %d ms", f.Limit.Milliseconds())
		}
		return f.Describe("timeout_ms")
	case execution.FieldCommand:
		return f.Describe("command")
	case execution.FieldFiles:
		if tool != writeFileTool {
			return f.Describe(fmt.Sprintf("files[%d].path", f.Index))
		}
	case execution.FieldEnv, execution.FieldArgs:
		return f.Describe(f.Part())
	case execution.FieldPath, execution.FieldTarget, execution.FieldArchive:
	}
	return f.Describe("path")
}

func invalid(message string) error {
	return &execution.Error{Code: execution.Invalid, Message: message}
}
