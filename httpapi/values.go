package httpapi

import (
	"errors"
	"io"
	"net/http"
	"strconv"
)

// maxValues bounds the values in a JSON body, by the brackets and commas that
// come before them. A request with a thousand files has three thousand.
const maxValues = 20_000

// errManyValues says that a body has too many values.
var errManyValues = errors.New("the body has too many values: " + strconv.Itoa(maxValues) +
	" opening brackets and commas may be outside of its strings")

// boundValues bounds the values in JSON bodies, in front of all doors: decoded,
// they take up to fifty times the memory of their text, where a string takes that
// of its own.
func boundValues(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if mustBeJSON(r) {
			r.Body = &countedBody{ReadCloser: r.Body}
		}
		next.ServeHTTP(w, r)
	})
}

// countedBody is a JSON body that can be read as long as it does not have too
// many values. It parses nothing: what is no JSON is its reader's to refuse.
type countedBody struct {
	io.ReadCloser
	values          int
	quoted, escaped bool // within a string, and after a backslash in one
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count(p[:n])
	if b.values > maxValues {
		_, _ = io.Copy(io.Discard, b.ReadCloser) // a client that is still sending hears no answer
		return 0, errManyValues
	}
	return n, err
}

func (b *countedBody) count(text []byte) {
	for _, c := range text {
		switch {
		case b.escaped:
			b.escaped = false
		case b.quoted:
			b.escaped, b.quoted = c == '\\', c != '"'
		case c == '"':
			b.quoted = true
		case c == '[' || c == '{' || c == ',':
			b.values++
		}
	}
}
