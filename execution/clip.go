package execution

import (
	"strings"
	"unicode/utf8"
)

// quoted is how many bytes of a client's value are repeated, such as in an error
// or in the log. Escaped, they are up to six times as many.
const quoted = 160

// Clip shortens a value from a client or a sandbox to a length that may be repeated.
// All interfaces use it where they create a text, so that no text grows with its
// input. A text that was cut is valid UTF-8 and does not keep the memory of the whole
// text.
func Clip(text string) string { return ClipTo(text, quoted) }

// ClipTo is [Clip] to a number of bytes.
func ClipTo(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:RuneStart(text, most)], "\uFFFD") + "..."
}

// RuneStart returns the index at which the character at i begins, or i if there is
// none.
func RuneStart[T string | []byte](text T, i int) int {
	for back := range min(utf8.UTFMax, i) {
		if utf8.RuneStart(text[i-back]) {
			return i - back
		}
	}
	return i
}
