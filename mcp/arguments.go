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
	endArguments struct {
		Session *string `json:"session"`
	}
)

// required is an argument that a call must have, a string, and what it is.
type required struct{ name, what string }

// parse reads a call's arguments into a struct of pointers and lists. An unknown
// one is refused with the known ones named: a model that misspells one would not
// notice else. So is one that is missing.
func parse(raw, into any, needed ...required) error {
	given, ok := raw.(map[string]any)
	if !ok && raw != nil {
		return invalid("arguments must be an object")
	}
	known := names(into)
	if err := checkNames("argument", given, known); err != nil {
		return err
	}
	if given["session"] == "" { // some models fill in what they leave out
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
	files, _ := given["files"].([]any)
	for i, file := range files {
		if err := checkFile(fmt.Sprintf("files[%d]", i), file); err != nil {
			return err
		}
	}
	return decode(given, into)
}

// checkFile says what is wrong with a file's fields, which are all strings: json
// would not say which file's.
func checkFile(name string, file any) error {
	fields, ok := file.(map[string]any)
	if !ok {
		return wrongType(name, kindOf(file), "object")
	}
	if err := checkNames("field of "+name, fields, names(new(inputFile))); err != nil {
		return err
	}
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if _, ok := fields[field].(string); !ok && fields[field] != nil {
			return wrongType(name+"."+field, kindOf(fields[field]), "string")
		}
	}
	return nil
}

// kindOf names what a value is in JSON.
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

// names gives the names of a struct's fields in JSON.
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

// decode puts arguments into the fields of a struct, and returns which one has a
// wrong type. It copies no text: encoding and decoding them once more would take many
// times their memory.
func decode(given map[string]any, into any) error {
	fields := reflect.ValueOf(into).Elem()
	for i := range fields.NumField() {
		name := fields.Type().Field(i).Tag.Get("json")
		if given[name] == nil {
			continue
		}
		if err := set(name, fields.Field(i), given[name]); err != nil {
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

// setList sets a list of objects.
func setList(name string, field reflect.Value, list []any) error {
	field.Set(reflect.MakeSlice(field.Type(), len(list), len(list)))
	for i, value := range list {
		object, ok := value.(map[string]any)
		if !ok {
			return wrongType(fmt.Sprintf("%s[%d]", name, i), kindOf(value), "object")
		}
		if err := decode(object, field.Index(i).Addr().Interface()); err != nil {
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

// timeout translates timeout_ms.
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

// content gives the bytes of a file that is given as text or in base64.
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

// count says how many of some arguments are given.
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
	case execution.FieldPath:
	}
	return f.Describe("path")
}

func invalid(message string) error {
	return &execution.Error{Code: execution.Invalid, Message: message}
}
