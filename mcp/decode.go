package mcp

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// required is a string that a call must have, with its description for errors.
type required struct{ name, what string }

// parse decodes a call's arguments into a struct. It rejects unknown arguments, because a model
// would not notice that it has misspelled one, and missing ones.
func parse(raw, into any, needed ...required) error {
	given, ok := raw.(map[string]any)
	if !ok && raw != nil {
		return wrongType("arguments", raw, "object")
	}
	if given["session"] == "" { // some models fill in arguments that they mean to leave out
		given = maps.Clone(given)
		delete(given, "session")
	}
	if err := checkNames("", given, names(into), needed); err != nil {
		return err
	}
	return decode("", given, into)
}

// names returns the names of a struct's fields in JSON.
func names(into any) []string {
	var names []string
	for _, field := range reflect.VisibleFields(reflect.TypeOf(into).Elem()) {
		names = append(names, field.Tag.Get("json"))
	}
	return names
}

// requiredFields returns the fields of a struct that an object must have.
func requiredFields(into any) []required {
	var fields []required
	for _, field := range reflect.VisibleFields(reflect.TypeOf(into).Elem()) {
		if what := field.Tag.Get("required"); what != "" {
			fields = append(fields, required{field.Tag.Get("json"), what})
		}
	}
	return fields
}

// checkNames checks that an object has the strings that it needs, and only names that are known. Names
// match exactly. The prefix goes before them in errors; it is empty for arguments.
func checkNames(prefix string, given map[string]any, known []string, needed []required) error {
	noun, subject := "argument", "the argument "
	if prefix != "" {
		noun, subject = "field of "+strings.TrimSuffix(prefix, "."), prefix
	}
	unknown := unknownName(noun, given, known)
	for _, n := range needed {
		if value := given[n.name]; value != nil {
			if _, isText := value.(string); !isText {
				return wrongType(prefix+n.name, value, "string")
			}
			continue
		}
		message := fmt.Sprintf("%s%s is required: %s, as a string", subject, n.name, n.what)
		if other := otherCase(n.name, slices.Sorted(maps.Keys(given))); other != "" {
			message += fmt.Sprintf("; %q differs from it in case", execution.Clip(other))
		} else if unknown != "" {
			message += "; " + unknown
		}
		return invalid(message)
	}
	if unknown != "" {
		return invalid(unknown)
	}
	return nil
}

// unknownName describes a name of an object that is not known, or returns "".
func unknownName(what string, given map[string]any, known []string) string {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if slices.Contains(known, name) {
			continue
		}
		if meant := otherCase(name, known); meant != "" {
			return fmt.Sprintf("unknown %s %q: it differs from %s in case", what, execution.Clip(name), meant)
		}
		return fmt.Sprintf("unknown %s %q: the known ones are %s", what, execution.Clip(name), strings.Join(known, ", "))
	}
	return ""
}

// otherCase returns the name that differs from another only in case, or "".
func otherCase(name string, names []string) string {
	for _, other := range names {
		if other != name && strings.EqualFold(other, name) {
			return other
		}
	}
	return ""
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
	case kind == reflect.Slice && isList:
		return setList(name, field, list)
	default:
		return wrongType(name, value, typeName(kind))
	}
	return nil
}

// setList sets a list of strings or of objects.
func setList(name string, field reflect.Value, list []any) error {
	field.Set(reflect.MakeSlice(field.Type(), len(list), len(list)))
	for i, value := range list {
		element, into := fmt.Sprintf("%s[%d]", name, i), field.Index(i).Addr().Interface()
		if field.Index(i).Kind() == reflect.String {
			if err := set(element, field.Index(i), value); err != nil {
				return err
			}
			continue
		}
		object, ok := value.(map[string]any)
		if !ok {
			return wrongType(element, value, "object")
		}
		if err := checkNames(element+".", object, names(into), requiredFields(into)); err != nil {
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

// wrongType is the error for a value of another type than the wanted one.
func wrongType(name string, value any, wanted string) error {
	article := "a"
	if strings.ContainsRune("aeiou", rune(wanted[0])) {
		article = "an"
	}
	return invalid(fmt.Sprintf("%s is %s: must be %s %s", name, show(value), article, wanted))
}

// shown bounds what show returns of a list or an object, in bytes.
const shown = 160

// show returns a value as JSON, clipped. It does not encode what it does not show.
func show(value any) string {
	var b strings.Builder
	write(&b, value)
	return execution.ClipTo(b.String(), shown)
}

func write(b *strings.Builder, value any) {
	if b.Len() > shown {
		return
	}
	switch value := value.(type) {
	case string:
		fmt.Fprintf(b, "%q", execution.Clip(value))
	case []any:
		b.WriteByte('[')
		for i, element := range value[:min(len(value), shown)] {
			b.WriteString(separator(i))
			write(b, element)
		}
		b.WriteByte(']')
	case map[string]any:
		b.WriteByte('{')
		names := slices.Sorted(maps.Keys(value))
		for i, name := range names[:min(len(names), shown)] {
			fmt.Fprintf(b, "%s%q: ", separator(i), execution.Clip(name))
			write(b, value[name])
		}
		b.WriteByte('}')
	default:
		text, _ := json.Marshal(value) // a number, true, false or null
		b.Write(text)
	}
}

// separator returns what goes before an element of a list.
func separator(index int) string {
	if index == 0 {
		return ""
	}
	return ", "
}
