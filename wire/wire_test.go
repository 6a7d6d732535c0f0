package wire_test

import (
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/wire"
)

const most = wire.MaxValues

func TestCheck(t *testing.T) {
	digits := strings.Repeat("1", 1000)
	for name, test := range map[string]struct {
		message string
		want    error
	}{
		"the most values allowed": {"[" + strings.Repeat("0,", most-1) + "0]", nil},
		"one more":                {"[" + strings.Repeat("0,", most) + "0]", wire.ErrManyValues},
		"brackets within text":    {`["` + strings.Repeat(`,[{\"`, most) + `"]`, nil},
		"after an escape":         {`{"\\": [` + strings.Repeat("0,", most) + `0]}`, wire.ErrManyValues},
		"a long number":           {`{"a": ` + digits + `}`, nil},
		"one that is too long":    {`{"a": ` + digits + `1}`, wire.ErrLongNumber},
		"one in a list":           {`[1,-` + digits + `]`, wire.ErrLongNumber},
		"one with a fraction":     {`[1.5e` + digits + `]`, wire.ErrLongNumber},
		"many short ones":         {`[` + strings.Repeat("11111, ", 1000) + `1]`, nil},
		"digits in a text":        {`{"` + digits + `1": "1` + digits + `"}`, nil},
		"not JSON":                {digits + digits, wire.ErrLongNumber},
	} {
		if err := wire.Check([]byte(test.message)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
		rest := strings.NewReader(test.message)
		body := wire.Body(io.NopCloser(iotest.HalfReader(rest)), nil)
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{body}); !errors.Is(err, test.want) || rest.Len() > 0 {
			t.Errorf("%s, as a stream: %v, %d bytes are unread", name, err, rest.Len())
		}
	}
}

// A body with many values is charged for them, and reading fails when the budget is spent.
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
		t.Errorf("beyond the budget: %v", err)
	}
	if err := budget.Open("").Take(1<<20 - 1); err != nil {
		t.Error(err)
	}
	if err := read(50); err != nil {
		t.Errorf("an ordinary request is charged: %v", err)
	}
}

// A body of unknown length is charged while it is read. After a refusal the rest is dropped.
func TestChargedBody(t *testing.T) {
	account := execution.NewBudget(4000).Open("")
	rest := strings.NewReader(strings.Repeat("x", 10_000))
	data, err := io.ReadAll(wire.Charged(io.NopCloser(iotest.OneByteReader(rest)), account, 4))
	if len(data) != 1000 || err == nil || execution.AsError(err).Code != execution.Overloaded || rest.Len() > 0 {
		t.Errorf("%d bytes, %v, %d are unread", len(data), err, rest.Len())
	}
}

// An event has a name and one line of data, and is sent at once.
func TestSendEvent(t *testing.T) {
	w := httptest.NewRecorder()
	wire.EventHeader(w.Header())
	if err := wire.SendEvent(w, wire.Event("message", []byte(`{"a": 1}`))); err != nil {
		t.Fatal(err)
	}
	if got := w.Body.String(); got != "event: message\ndata: {\"a\": 1}\n\n" || !w.Flushed || w.Header().Get("Content-Type") != wire.EventStream {
		t.Errorf("%q, flushed: %v, header: %v", got, w.Flushed, w.Header())
	}
}

// The limits apply to the texts of a message together, and texts are charged for their copies and
// their values.
func TestTexts(t *testing.T) {
	list := "[" + strings.Repeat("0,", most/2-1) + "0]"
	texts := wire.NewTexts(nil)
	for range 2 {
		if value, err := texts.Decode(list); err != nil || len(value.([]any)) != most/2 {
			t.Fatal(err)
		}
	}
	if _, err := texts.Decode("[]"); !errors.Is(err, wire.ErrManyValues) {
		t.Errorf("one more: %v", err)
	}
	if _, err := wire.NewTexts(nil).Decode("[" + strings.Repeat("1", wire.MaxNumber+1) + "]"); !errors.Is(err, wire.ErrLongNumber) {
		t.Errorf("a long number: %v", err)
	}
	for _, text := range []string{`["` + strings.Repeat("x", 6000) + `"]`, "[" + strings.Repeat("[],", 40) + "[]]"} {
		account := execution.NewBudget(10_000).Open("")
		if _, err := wire.NewTexts(account).Decode(text); err == nil || execution.AsError(err).Code != execution.Overloaded {
			t.Errorf("beyond the budget: %v", err)
		}
	}
	budget := execution.NewBudget(10_000)
	account := budget.Open("")
	if _, err := wire.NewTexts(account).Decode(`["` + strings.Repeat("x", 4000) + `"]`); err != nil {
		t.Error(err)
	}
	if err := budget.Open("").Take(6000); err == nil {
		t.Error("a decoded text is not charged")
	}
	account.Close()
	if err := budget.Open("").Take(10_000); err != nil {
		t.Error(err)
	}
}
