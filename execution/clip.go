package execution

import (
	"strings"
	"unicode/utf8"
)

// quoted is how many bytes of a client's value are repeated, such as in an error
// or in the log. Escaped, they are at most six times as many.
const quoted = 160

// Clip shortens a client's value, or a sandbox's, to what may be repeated. All
// interfaces use it where they create a text, so that no text grows with what was
// sent. The result is valid UTF-8 where it was cut, and never refers to the whole
// text's memory then.
func Clip(text string) string { return ClipTo(text, quoted) }

// ClipTo is [Clip] for a text that may have most bytes.
func ClipTo(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:RuneStart(text, most)], "\uFFFD") + "..."
}

// RuneStart returns where the character at i begins, or i where there is none.
func RuneStart[T string | []byte](text T, i int) int {
	for back := range min(utf8.UTFMax, i) {
		if utf8.RuneStart(text[i-back]) {
			return i - back
		}
	}
	return i
}
