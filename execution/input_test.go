package execution_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// source is one that is a function.
type source func() (io.Reader, error)

func (s source) Open(context.Context) (io.ReadCloser, error) {
	r, err := s()
	return io.NopCloser(r), err
}

// gives returns a source of a text, which is read in pieces of one byte.
func gives(text string) source {
	return func() (io.Reader, error) { return iotest.OneByteReader(strings.NewReader(text)), nil }
}

func readInput(t *testing.T, input execution.Input) (string, error) {
	t.Helper()
	r, err := input.Open(t.Context())
	if err != nil {
		return "", err
	}
	content, err := io.ReadAll(r)
	return string(content), errors.Join(err, r.Close())
}

// A source has its declared size, or reading it fails.
func TestInput(t *testing.T) {
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		input execution.Input
		want  string // of the content, or of the error
	}{
		"in memory":       {execution.Inline("a", []byte("text")), "text"},
		"empty":           {execution.Inline("a", nil), ""},
		"no source":       {execution.Input{Path: "a"}, ""},
		"as it should":    {execution.Input{Path: "a", Size: 4, Source: gives("text")}, "text"},
		"no source, size": {execution.Input{Path: "a", Size: 1}, `the input "a" ends after 0 bytes of its declared size of 1`},
		"fewer":           {execution.Input{Path: "a", Size: 5, Source: gives("text")}, `the input "a" ends after 4 bytes of its declared size of 5`},
		"more":            {execution.Input{Path: "a", Size: 3, Source: gives("text")}, `the input "a" has more than its declared size of 3 bytes`},
		"more than none":  {execution.Input{Path: "a", Source: gives("text")}, `the input "a" has more than its declared size of 0 bytes`},
		"cannot be opened": {
			execution.Input{Path: "a", Size: 1, Source: source(func() (io.Reader, error) { return nil, broken })}, `opening the input "a": broken`,
		},
		"cannot be read": {
			execution.Input{Path: "a", Size: 9, Source: source(func() (io.Reader, error) { return iotest.ErrReader(broken), nil })}, `reading the input "a": broken`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // it may be opened again
				got, err := readInput(t, test.input)
				if err != nil {
					got = err.Error()
				}
				if got != test.want {
					t.Errorf("%q, %v", got, err)
				}
			}
		})
	}
}

// Inline counts the bytes.
func TestInline(t *testing.T) {
	content := bytes.Repeat([]byte("x"), 1000)
	if got := execution.Inline("d/a", content); got.Path != "d/a" || got.Size != 1000 {
		t.Errorf("%+v", got)
	}
}
