// Package wire has what both doors do with JSON that clients send, before it is
// decoded: it bounds the values in it and how long its numbers are, and charges a
// request's account for the memory that they take.
package wire

import (
	"errors"
	"io"
	"strconv"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// What requests are charged for, in bytes. The figures are above what was
// measured: the collector needs room as well.
const (
	// RequestBytes is what a small request takes: goroutines, buffers, what is
	// logged, and an answer of some kilobytes.
	RequestBytes = 64 << 10
	// BodyTimes is how many copies there are of a body at once: as it came, decoded
	// to be looked at, and decoded for use.
	BodyTimes = 4
)

const (
	// maxValues bounds the values in a message, by the brackets and commas that
	// come before them. A request with a thousand files has three thousand.
	maxValues = 20_000
	// maxNumber bounds how many characters a number has: decoders repeat one that
	// is too large in their errors.
	maxNumber = 1000
	// valueBytes is what a value takes when it is decoded, beside its text. An
	// object of one member, which counts as two, takes 350 bytes for each time that
	// it is decoded.
	valueBytes = 320
	// freeValues are those that the account is not charged for: an ordinary
	// request's.
	freeValues = 100
)

// Errors of messages that are refused.
var (
	ErrManyValues = errors.New("the body has too many values: " + strconv.Itoa(maxValues) +
		" opening brackets and commas may be outside of its strings")
	ErrLongNumber = errors.New("the body has a number that is too long: it may have " + strconv.Itoa(maxNumber) + " characters")
)

// counter counts the values in a message. It parses nothing: what is no JSON is its
// reader's to refuse.
type counter struct {
	values          int
	number          int  // characters since the last that is no part of a number
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
			if c.number++; c.number > maxNumber {
				c.err = ErrLongNumber
			}
		default:
			c.number = 0
		}
	}
	if c.values > maxValues {
		c.err = ErrManyValues
	}
}

// Check returns an error for a message that has too many values, or too long a
// number.
func Check(message []byte) error {
	var c counter
	c.count(message)
	return c.err
}

// Body returns a body that can be read as long as it does not have too many values,
// or too long a number. It charges an account for its values.
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
		_, _ = io.Copy(io.Discard, b.ReadCloser) // a client that is still sending hears no answer
		return 0, b.err
	}
	return n, err
}

// Charged returns a body that charges an account for each byte that is read of it,
// times some. It is for bodies of which the length is not known before.
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
