package httpapi

import (
	"encoding/json"
	"io"

	"github.com/danielgtaylor/huma/v2"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// printed is an answer that contains the output of a program.
type printed interface {
	// outputs returns the output and the answer without it.
	outputs() (stdout, stderr string, rest any)
}

func (r executeResponse) outputs() (stdout, stderr string, rest any) {
	return r.Stdout, r.Stderr, resultEvent{executeResponse: r}
}

func (r bashResponse) outputs() (stdout, stderr string, rest any) {
	return r.Stdout, r.Stderr, struct {
		bashResponse

		// These hide the fields of the answer. They are never set.
		Stdout *string `json:"stdout,omitempty"`
		Stderr *string `json:"stderr,omitempty"`
	}{bashResponse: r}
}

// writtenBytes is how much of an output is written at a time. It takes up to six times as
// much when it is escaped.
const writtenBytes = 16 << 10

// writeAnswer writes an answer as JSON. It writes a long output in pieces, so that only
// one of them is held in its escaped form.
func writeAnswer(w io.Writer, value any) error {
	if answer, ok := value.(printed); ok {
		stdout, stderr, rest := answer.outputs()
		if len(stdout)+len(stderr) > writtenBytes {
			return writePrinted(w, stdout, stderr, rest)
		}
	}
	return huma.DefaultJSONFormat.Marshal(w, value)
}

func writePrinted(w io.Writer, stdout, stderr string, rest any) error {
	tail, err := json.Marshal(rest)
	if err != nil {
		return err
	}
	for _, field := range []struct{ begin, text string }{{`{"stdout":"`, stdout}, {`","stderr":"`, stderr}} {
		if _, err := io.WriteString(w, field.begin); err != nil {
			return err
		}
		for text := field.text; text != ""; {
			piece := firstPiece(text)
			encoded, err := json.Marshal(piece)
			if err != nil {
				return err
			}
			if _, err := w.Write(encoded[1 : len(encoded)-1]); err != nil { // without its quotes
				return err
			}
			text = text[len(piece):]
		}
	}
	_, err = w.Write(append([]byte(`",`), append(tail[1:], '\n')...))
	return err
}

// firstPiece returns the beginning of a text, of at most writtenBytes. It does not split a
// character.
func firstPiece[T string | []byte](text T) T {
	if len(text) <= writtenBytes {
		return text
	}
	return text[:execution.RuneStart(text, writtenBytes)]
}
