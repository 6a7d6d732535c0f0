package config

import (
	"math/big"
	"reflect"
	"regexp"
	"strings"
)

// canonical returns a value in the form that the library parses. Values may have the forms
// that Python and its logging module accept, because deployments of the reference service
// have them.
func (s Setting) canonical(value string) string {
	switch {
	case s.field.Type.Kind() == reflect.Int:
		return pythonInt(value)
	case s.field.Type.Kind() == reflect.Float64:
		return strings.TrimSpace(value)
	case s.field.Tag.Get("oneof") == "":
		return value
	}
	word := strings.ToLower(strings.TrimSpace(value))
	for pair := range strings.FieldsSeq(s.field.Tag.Get("alias")) {
		if alias, name, _ := strings.Cut(pair, "="); alias == word {
			return name
		}
	}
	return word
}

// pythonInt returns a whole number as Python's int accepts it, such as " +1_000 ", in plain
// digits. It returns other text as it is.
func pythonInt(text string) string {
	trimmed := strings.TrimSpace(text)
	if !regexp.MustCompile(`^[+-]?[0-9]+(_[0-9]+)*$`).MatchString(trimmed) {
		return text
	}
	n, ok := new(big.Int).SetString(strings.ReplaceAll(trimmed, "_", ""), 10)
	if !ok {
		return text
	}
	return n.String()
}
