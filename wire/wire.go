// Package wire holds what all interfaces share for data that clients exchange with the server:
// the limits on JSON, which apply before it is decoded, what a request's account is charged for
// it, and the encoding of server-sent events.
package wire

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// What requests are charged, in bytes. The figures are above the measured ones, because the
// garbage collector needs room as well.
const (
	// RequestBytes is the cost of a small request: goroutines, buffers, log records and an
	// answer of some kilobytes.
	RequestBytes = 64 << 10
	// BodyTimes is how many copies of a body exist at once: as received, decoded for
	// inspection, and decoded for use.
	BodyTimes = 4
)

// Limits on JSON. They are the same for every interface.
const (
	// MaxValues bounds the values of a message, counted by the brackets and commas that
	// precede them. A request with a thousand files has three thousand.
	MaxValues = 20_000
	// MaxNumber bounds the characters of a number. Decoders repeat a number that is out of
	// range in their errors.
	MaxNumber = 1000
)

const (
	// valueBytes is the cost of a decoded value, beside its text. An object of one member,
	// which counts as two values, takes 350 bytes each time that it is decoded.
	valueBytes = 320
	// freeValues is how many values are not charged: those of an ordinary request.
	freeValues = 100
)

// LimitError is the error for a message that exceeds a limit on JSON. Its text is for the
// client.
type LimitError string

// Error implements error.
func (e LimitError) Error() string { return string(e) }

// Errors of messages that exceed a limit.
var (
	ErrManyValues = LimitError(fmt.Sprintf(
		"too many JSON values: at most %d opening brackets and commas are allowed outside of strings", MaxValues))
	ErrLongNumber = LimitError(fmt.Sprintf("a JSON number is too long: at most %d characters are allowed", MaxNumber))
)

// counter counts the values of a message. It does not validate the message: the decoder rejects
// what is not JSON.
type counter struct {
	values          int
	number          int  // characters of the current number
	quoted, escaped bool // within a string, and after a backslash in one
	err             error
}

func (c *counter) count(text []byte) {
	for _, char := range text {
		switch {
		case c.escaped:
			c.escaped = false
		case c.quoted:
			c.escaped, c.quoted = char == '\\', char != '"'
		case char == '"':
			c.quoted, c.number = true, 0
		case char == '[' || char == '{' || char == ',':
			c.values++
			c.number = 0
		case char > ' ' && char != ':' && char != ']' && char != '}':
			if c.number++; c.number > MaxNumber {
				c.err = ErrLongNumber
			}
		default:
			c.number = 0
		}
	}
	if c.values > MaxValues {
		c.err = ErrManyValues
	}
}

// Check returns a [LimitError] for a message that exceeds a limit.
func Check(message []byte) error {
	var c counter
	c.count(message)
	return c.err
}

// Texts decodes JSON that values of a message have as text. The limits apply to the texts
// of a message together, as they do to a message.
type Texts struct {
	account *execution.Account
	values  int
}

// NewTexts returns the Texts of a message whose request has an account.
func NewTexts(account *execution.Account) *Texts { return &Texts{account: account} }

// Decode decodes a text. It charges the account for the values, and for the text, which is copied
// twice. The error is a [LimitError], an [*execution.Error] of the account, or the decoder's.
func (t *Texts) Decode(text string) (any, error) {
	data := int64(len(text))
	if err := t.account.Take(2 * data); err != nil {
		return nil, err
	}
	defer t.account.Give(data) // the first copy
	c := counter{values: t.values}
	encoded := []byte(text)
	c.count(encoded)
	if c.err != nil {
		return nil, c.err
	}
	if err := t.account.Take(int64(c.values-t.values) * valueBytes); err != nil {
		return nil, err
	}
	t.values = c.values
	var value any
	err := json.Unmarshal(encoded, &value)
	return value, err
}

// Body returns a body that can be read until it exceeds a limit, which is a [LimitError]. It
// charges an account for the values.
func Body(body io.ReadCloser, account *execution.Account) io.ReadCloser {
	return &countedBody{ReadCloser: body, account: account, charged: freeValues}
}

type countedBody struct {
	io.ReadCloser
	counter
	account *execution.Account
	charged int // values
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count(p[:n])
	if b.err == nil && b.values > b.charged {
		b.err = b.account.Take(int64(b.values-b.charged) * valueBytes)
		b.charged = b.values
	}
	if b.err != nil {
		_, _ = io.Copy(io.Discard, b.ReadCloser) // a client does not read the answer while it is sending
		return 0, b.err
	}
	return n, err
}

// Charged returns a body that charges an account for each byte that is read, multiplied by
// times. It is for bodies whose length is not known in advance.
func Charged(body io.ReadCloser, account *execution.Account, times int64) io.ReadCloser {
	return &chargedBody{ReadCloser: body, account: account, times: times}
}

type chargedBody struct {
	io.ReadCloser
	account *execution.Account
	times   int64
	err     error
}

func (b *chargedBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	if b.err = b.account.Take(int64(n) * b.times); b.err != nil {
		_, _ = io.Copy(io.Discard, b.ReadCloser) // as above
		return 0, b.err
	}
	return n, err
}
