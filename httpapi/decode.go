package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Bodies in JSON are decoded as Python's json module does: names match exactly, and the
// last of two fields of one name counts. The decoder of encoding/json ignores the case of
// names, so it only parses.

// facts is what the decoder notes about a body for its handler. A body embeds it.
type facts struct {
	// unknown names fields that the API does not know, such as files[0].mode.
	unknown []string
	// nulls are the faults of fields that are null and must not be: to the library a null
	// is the same as a missing field.
	nulls []fault
}

// note implements [noting].
func (f *facts) note(d *decoder) { f.unknown, f.nulls = d.unknown, d.nulls }

// refuseNulls returns an error that names the fields that are null and must not be.
func (f *facts) refuseNulls() error {
	if len(f.nulls) == 0 {
		return nil
	}
	return unprocessable(f.nulls...)
}

// noting is a body that embeds facts.
type noting interface{ note(d *decoder) }

// maxUnknownFields bounds how many unknown fields an answer names.
const maxUnknownFields = 20

// unmarshal decodes JSON for the library, first into any, which it validates, and then
// into the type of the body.
func unmarshal(data []byte, into any) error {
	if _, untyped := into.(*any); untyped {
		return json.Unmarshal(data, into)
	}
	var value any
	parser := json.NewDecoder(bytes.NewReader(data))
	parser.UseNumber()
	if err := parser.Decode(&value); err != nil {
		return err
	}
	d := new(decoder)
	target := reflect.ValueOf(into).Elem()
	if err := d.set(target, value, ""); err != nil {
		return err
	}
	if target = reflect.Indirect(target); !target.IsValid() {
		return nil // it is null, which the library's validation refuses
	}
	if body, ok := reflect.TypeAssert[noting](target.Addr()); ok {
		body.note(d)
	}
	return nil
}

// decoder sets fields from values that are decoded already. It copies no text.
type decoder struct {
	unknown []string
	nulls   []fault
}

// set sets a field. The path has the form files[0].path. The error of a value of another
// type names no field where the library's validation has found it before.
func (d *decoder) set(field reflect.Value, value any, path string) error {
	if field.Kind() == reflect.Pointer {
		if value == nil {
			return nil
		}
		field.Set(reflect.New(field.Type().Elem()))
		return d.set(field.Elem(), value, path)
	}
	switch value := value.(type) {
	case nil:
		return nil
	case map[string]any:
		return d.setObject(field, value, path)
	case []any:
		return d.setList(field, value, path)
	case json.Number:
		if n, err := value.Int64(); field.Kind() == reflect.Int64 && err == nil {
			field.SetInt(n)
			return nil
		}
	case bool:
		if field.Kind() == reflect.Bool {
			field.SetBool(value)
			return nil
		}
	case string:
		if field.Kind() == reflect.String {
			field.SetString(value)
			return nil
		}
	}
	if loose, ok := reflect.TypeAssert[*looseBool](field.Addr()); ok && loose.set(value) {
		return nil
	}
	if number, ok := value.(json.Number); ok && field.Kind() == reflect.Int64 {
		return notInteger(path, number)
	}
	return fmt.Errorf("%T cannot be %s", value, field.Type())
}

func (d *decoder) setList(field reflect.Value, list []any, path string) error {
	if field.Kind() != reflect.Slice {
		return fmt.Errorf("a list cannot be %s", field.Type())
	}
	field.Set(reflect.MakeSlice(field.Type(), len(list), len(list)))
	for i, value := range list {
		if err := d.set(field.Index(i), value, fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) setObject(field reflect.Value, object map[string]any, path string) error {
	switch field.Kind() {
	case reflect.Map:
		field.Set(reflect.MakeMapWithSize(field.Type(), len(object)))
		for name, value := range object {
			element := reflect.New(field.Type().Elem()).Elem()
			if err := d.set(element, value, path+"."+name); err != nil {
				return err
			}
			field.SetMapIndex(reflect.ValueOf(name), element)
		}
		return nil
	case reflect.Struct:
		return d.setStruct(field, object, path)
	default:
		return fmt.Errorf("an object cannot be %s", field.Type())
	}
}

func (d *decoder) setStruct(target reflect.Value, object map[string]any, path string) error {
	fields := namedFields(target)
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if _, known := fields[name]; !known && len(d.unknown) < maxUnknownFields {
			d.unknown = append(d.unknown, within(path, execution.Clip(name)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value, given := object[name]
		if !given {
			continue
		}
		field := target.Type().FieldByIndex(fields[name])
		if value == nil && path == "" && field.Tag.Get("nullable") != "true" {
			d.nulls = append(d.nulls, nullFault(name, field.Type))
		}
		if err := d.set(target.FieldByIndex(fields[name]), value, within(path, name)); err != nil {
			return err
		}
	}
	return nil
}

// namedFields returns the indices of the fields of a struct, by their names in JSON.
func namedFields(target reflect.Value) map[string][]int {
	fields := make(map[string][]int)
	for i := range target.NumField() {
		if field := target.Type().Field(i); field.IsExported() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			fields[name] = field.Index
		}
	}
	return fields
}

// notIntegerText is between the path and the number in the error of a number that is
// integral but not an integer of Go, such as 5.0. The library passes on only its text.
const notIntegerText = " is not an integer: "

func notInteger(path string, number json.Number) error {
	return errors.New(path + notIntegerText + string(number))
}

// within returns the path of a field of an object.
func within(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// nullFault returns the fault of a field that is null.
func nullFault(name string, of reflect.Type) fault {
	if of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	kind, want := "string_type", "string"
	switch of.Kind() {
	case reflect.Int64:
		kind, want = "int_type", "integer"
	case reflect.Slice:
		kind, want = "list_type", "array"
	case reflect.Map:
		kind, want = "dict_type", "object"
	case reflect.Bool:
		return boolFault(nil, "body", name)
	default: // strings
	}
	return newFault(kind, "must be of type "+want+", not null", nil, "body", name)
}
