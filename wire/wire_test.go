package wire_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/wire"
)

const most = 20_000

func TestCheck(t *testing.T) {
	digits := strings.Repeat("1", 1000)
	for name, test := range map[string]struct {
		message string
		want    error
	}{
		"as many values as may be": {"[" + strings.Repeat("0,", most-1) + "0]", nil},
		"one more":                 {"[" + strings.Repeat("0,", most) + "0]", wire.ErrManyValues},
		"what is text":             {`["` + strings.Repeat(`,[{\"`, most) + `"]`, nil},
		"after an escape":          {`{"\\": [` + strings.Repeat("0,", most) + `0]}`, wire.ErrManyValues},
		"a long number":            {`{"a": ` + digits + `}`, nil},
		"one that is too long":     {`{"a": ` + digits + `1}`, wire.ErrLongNumber},
		"one in a list":            {`[1,-` + digits + `]`, wire.ErrLongNumber},
		"one with a fraction":      {`[1.5e` + digits + `]`, wire.ErrLongNumber},
		"many short ones":          {`[` + strings.Repeat("11111, ", 1000) + `1]`, nil},
		"digits in a text":         {`{"` + digits + `1": "1` + digits + `"}`, nil},
		"no JSON":                  {digits + digits, wire.ErrLongNumber},
	} {
		if err := wire.Check([]byte(test.message)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
		rest := strings.NewReader(test.message)
		body := wire.Body(io.NopCloser(iotest.HalfReader(rest)), nil)
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{body}); !errors.Is(err, test.want) || rest.Len() > 0 {
			t.Errorf("%s, as it comes: %v, %d bytes are left", name, err, rest.Len())
		}
	}
}

// A body with many values is charged for them, and ends where nothing is left.
func TestBodyIsCharged(t *testing.T) {
	budget := execution.NewBudget(1 << 20)
	read := func(values int) error {
		account := budget.Open("")
		defer account.Close()
		_, err := io.ReadAll(wire.Body(io.NopCloser(strings.NewReader("["+strings.Repeat("0,", values)+"0]")), account))
		return err
	}
	if err := read(3000); err != nil {
		t.Error(err)
	}
	if err := read(4000); err == nil || execution.AsError(err).Code != execution.Overloaded {
		t.Errorf("more than there is room for: %v", err)
	}
	if err := budget.Open("").Take(1<<20 - 1); err != nil {
		t.Error(err)
	}
	if err := read(50); err != nil {
		t.Errorf("an ordinary request is charged: %v", err)
	}
}

// A body of no known length is charged as it comes, and the rest of it is dropped.
func TestChargedBody(t *testing.T) {
	account := execution.NewBudget(4000).Open("")
	rest := strings.NewReader(strings.Repeat("x", 10_000))
	data, err := io.ReadAll(wire.Charged(io.NopCloser(iotest.OneByteReader(rest)), account, 4))
	if len(data) != 1000 || err == nil || execution.AsError(err).Code != execution.Overloaded || rest.Len() > 0 {
		t.Errorf("%d bytes, %v, %d are left", len(data), err, rest.Len())
	}
}
