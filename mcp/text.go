package mcp

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean makes what a program printed harmless and plain: without escape
// sequences, which could tell a terminal to do something or hide text from the
// person who approves it, without other control characters, and with lines as a
// terminal would leave them after carriage returns, such as a progress bar's.
func clean(text string) string {
	if isPlain(text) {
		return text
	}
	var out strings.Builder // no list of lines, which would take 16 bytes for each
	for line := range strings.SplitAfterSeq(asLines(stripEscapes(text)), "\n") {
		line, ended := strings.CutSuffix(line, "\n")
		out.WriteString(strings.Map(keepVisible, overwrite(line)))
		if ended {
			out.WriteByte('\n')
		}
	}
	return out.String()
}

// asLines has characters that separate lines do so.
func asLines(text string) string {
	return strings.Map(func(r rune) rune {
		if r == lineSeparator || r == paragraphSeparator {
			return '\n'
		}
		return r
	}, text)
}

// isPlain says whether there is nothing to clean: most output is so.
func isPlain(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r != '\n' && keepVisible(r) != r }) < 0
}

// overwrite gives what a line shows after its last carriage return.
func overwrite(line string) string {
	line = strings.TrimRight(line, "\r")
	return line[strings.LastIndexByte(line, '\r')+1:]
}

// keepVisible drops control characters but tabs, and characters that show nothing
// by themselves: they change the direction of the text around them, which can make
// code read as something else, or hide a text in another, from people though not
// from models. Scripts and emojis need those that join, and variants of them.
func keepVisible(r rune) rune {
	const nonJoiner, joiner, firstSelector = '\u200c', '\u200d', '\U000e0100'
	switch {
	case r == '\t' || r == nonJoiner || r == joiner:
		return r
	case unicode.IsControl(r), r == lineSeparator, r == paragraphSeparator:
		return -1
	case unicode.Is(unicode.Cf, r) && !unicode.Is(unicode.Prepended_Concatenation_Mark, r):
		return -1
	case unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r):
		return -1
	case unicode.Is(unicode.Variation_Selector, r) && r >= firstSelector:
		return -1
	}
	return r
}

const lineSeparator, paragraphSeparator = '\u2028', '\u2029'

// cut shortens a text to about most bytes: it keeps its head and its tail, whole
// lines where lines are short, and says between them how much is missing.
func cut(text string, most int) (short string, missing int) {
	if len(text) <= most {
		return text, 0
	}
	head := text[:wholeLines(text, most/2)]
	tail := lastLines(text, most/2)
	missing = len(text) - len(head) - len(tail)
	return fmt.Sprintf("%s\n[... %s of %s bytes are left out here ...]\n%s",
		strings.TrimSuffix(head, "\n"), grouped(int64(missing)), grouped(int64(len(text))), tail), missing
}

// wholeLines gives how many of the first most bytes make whole lines, or at
// least whole characters.
func wholeLines(text string, most int) int {
	if end := strings.LastIndexByte(text[:most], '\n'); end > most/2 {
		return end + 1
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return most
}

// lastLines gives about the last most bytes: whole lines, or at least whole
// characters.
func lastLines(text string, most int) string {
	start := len(text) - most
	tail := text[start:]
	if end := strings.IndexByte(tail, '\n'); text[start-1] != '\n' && end >= 0 && end < most/2 {
		return tail[end+1:]
	}
	for len(tail) > 0 && !utf8.RuneStart(tail[0]) {
		tail = tail[1:]
	}
	return tail
}

// grouped writes a number with commas between its thousands.
func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// lastLine gives the last line of a text that shows something.
func lastLine(text string) string {
	text = strings.TrimRightFunc(clean(text), unicode.IsSpace)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
