package httpapi

import (
	"maps"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// envField is the field of a request with environment variables. Their values may be
// secrets: no answer repeats them.
const envField = "env"

// withoutSecrets returns what an answer may repeat of a value that was sent at a location
// such as "body.files[0]".
func withoutSecrets(location string, value any) any {
	if location == "body."+envField || strings.HasPrefix(location, "body."+envField+".") {
		return nil
	}
	switch value := value.(type) {
	case string: // perhaps a body that could not be parsed
		if location == "body" && strings.Contains(strings.ToLower(execution.Clip(value)), envField) {
			return nil
		}
	case map[string]any:
		rest := maps.Clone(value)
		for name := range value {
			if strings.EqualFold(name, envField) { // the library finds fields in any case
				rest[name] = "..."
			}
		}
		return rest
	case []any:
		rest := make([]any, len(value))
		for i, one := range value {
			rest[i] = withoutSecrets(location, one)
		}
		return rest
	}
	return value
}
