package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// displayed is a value that a program displayed, in each of its forms by media type, as
// Jupyter's messages have them: images in base64, JSON as JSON, all else as text
// (https://jupyter-client.readthedocs.io/en/stable/messaging.html#display-data).
type displayed map[string]any

func displayedValues(values [][]execution.Representation) []displayed {
	out := make([]displayed, len(values))
	for i, forms := range values {
		out[i] = make(displayed, len(forms))
		for _, form := range forms {
			out[i][form.Type] = jsonOf(form)
		}
	}
	return out
}

// jsonOf returns a form as a value to encode as JSON.
func jsonOf(form execution.Representation) any {
	switch {
	case isJSONType(form.Type) && json.Valid(form.Data):
		return json.RawMessage(form.Data)
	case isBinaryType(form.Type):
		return base64.StdEncoding.EncodeToString(form.Data)
	default:
		return strings.ToValidUTF8(string(form.Data), "\uFFFD")
	}
}

func isJSONType(kind string) bool {
	return kind == "application/json" || strings.HasSuffix(kind, "+json")
}

func isBinaryType(kind string) bool {
	group, name, _ := strings.Cut(kind, "/")
	return name == "pdf" || (group == "image" || group == "audio" || group == "video") && !strings.HasSuffix(name, "+xml")
}
