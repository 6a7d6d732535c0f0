package httpapi

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"unicode"

	"github.com/danielgtaylor/huma/v2"
)

// looseBool is a boolean as Pydantic's lax mode accepts it: also as the number 0 or 1, or
// as one of some strings in any case.
type looseBool bool

func trueWords() []string { return []string{"1", "on", "t", "true", "y", "yes"} }

func falseWords() []string { return []string{"0", "off", "f", "false", "n", "no"} }

// set sets the boolean from a decoded value, and reports whether that is one.
func (b *looseBool) set(value any) bool {
	switch value := value.(type) {
	case bool:
		*b = looseBool(value)
		return true
	case json.Number:
		n, err := value.Float64()
		*b = n == 1
		return err == nil && (n == 0 || n == 1)
	case string:
		word := strings.ToLower(value)
		*b = looseBool(slices.Contains(trueWords(), word))
		return bool(*b) || slices.Contains(falseWords(), word)
	}
	return false
}

// TransformSchema implements [huma.SchemaTransformer].
func (looseBool) TransformSchema(_ huma.Registry, schema *huma.Schema) *huma.Schema {
	schema.Type = ""
	schema.AnyOf = []*huma.Schema{
		{Type: huma.TypeBoolean},
		{Type: huma.TypeNumber, Enum: []any{0.0, 1.0}},
		{Type: huma.TypeString, Pattern: wordsPattern(append(trueWords(), falseWords()...))},
	}
	return schema
}

// wordsPattern returns a pattern that matches words in any case. Patterns of JSON Schema
// have no flags.
func wordsPattern(words []string) string {
	var pattern strings.Builder
	for i, word := range words {
		if i > 0 {
			pattern.WriteByte('|')
		}
		for _, char := range word {
			if upper := unicode.ToUpper(char); upper != char {
				pattern.WriteString("[" + string(char) + string(upper) + "]")
				continue
			}
			pattern.WriteRune(char)
		}
	}
	return "^(" + pattern.String() + ")$"
}

// boolFault returns Pydantic's fault of a value that is not a boolean. It distinguishes
// values of a type that may be one.
func boolFault(value any, loc ...any) fault {
	const wrong = "Input should be a valid boolean"
	number, isNumber := value.(float64)
	_, isText := value.(string)
	if isText || isNumber && number == math.Trunc(number) {
		return fault{Type: "bool_parsing", Loc: loc, Msg: wrong + ", unable to interpret input", Input: clip(value)}
	}
	return fault{Type: "bool_type", Loc: loc, Msg: wrong, Input: clip(value)}
}
