package runner

import (
	"strings"
	"unicode/utf8"
)

// truncated ends an output that was cut. Clients look for it: it is part of
// the HTTP contract.
const truncated = "\n...[truncated]"

// output collects one of a program's streams up to a limit.
type output struct {
	limit int // bytes
	data  []byte
	cut   bool
	told  int // bytes of data that news has given
}

// add keeps what fits. A supervisor sends no more than the limit: it sends one
// empty frame where it left something out.
func (o *output) add(data []byte) {
	room := o.limit - len(o.data)
	if len(data) == 0 || len(data) > room {
		o.cut = true
		data = data[:min(len(data), room)]
	}
	o.data = append(o.data, data...)
}

// text returns the output as UTF-8: each invalid byte becomes U+FFFD, and a
// cut does not split a character.
func (o *output) text() string {
	data := o.data
	if o.cut {
		data = trimPartialRune(data)
	}
	text := toText(data)
	if o.cut {
		text += truncated
	}
	return text
}

// news returns what was added to text since the last call, except what more
// bytes might change: a character that lacks some, and the mark of a cut.
func (o *output) news() string {
	fresh := trimPartialRune(o.data[o.told:])
	o.told += len(fresh)
	return toText(fresh)
}

// toText makes UTF-8 of bytes: each that is none becomes U+FFFD.
func toText(data []byte) string {
	if utf8.Valid(data) {
		return string(data)
	}
	var text strings.Builder
	for len(data) > 0 {
		char, size := utf8.DecodeRune(data)
		text.WriteRune(char)
		data = data[size:]
	}
	return text.String()
}

// trimPartialRune drops the bytes of a character that lacks some at the end.
func trimPartialRune(data []byte) []byte {
	for back := 1; back <= min(utf8.UTFMax, len(data)); back++ {
		tail := data[len(data)-back:]
		if utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				return data[:len(data)-back]
			}
			break
		}
	}
	return data
}
