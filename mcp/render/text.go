package render

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// textBuilder writes a text of sections that each begin on a new line: output, and our own
// remarks in brackets.
type textBuilder struct{ strings.Builder }

// section starts a new line and writes to it.
func (b *textBuilder) section(format string, args ...any) {
	if written := b.String(); written != "" && !strings.HasSuffix(written, "\n") {
		_, _ = b.WriteString("\n") // it never fails
	}
	_, _ = fmt.Fprintf(b, format, args...)
}

// remark writes a remark in brackets, on a line of its own.
func (b *textBuilder) remark(format string, args ...any) {
	b.section("["+format+"]\n", args...)
}

// Clean makes what a program printed harmless and plain. It removes escape sequences, which
// could control a terminal or hide text from the person who approves it. It removes other
// control characters, and keeps of each line what a terminal would show after carriage
// returns, such as those of a progress bar.
func Clean(text string) string {
	if isPlain(text) {
		return text
	}
	var out strings.Builder // not a slice of lines, which would take 16 bytes for each
	for line := range strings.SplitAfterSeq(separateLines(stripEscapes(text)), "\n") {
		line, ended := strings.CutSuffix(line, "\n")
		out.WriteString(strings.Map(keepVisible, overwrite(line)))
		if ended {
			out.WriteByte('\n')
		}
	}
	return out.String()
}

const lineSeparator, paragraphSeparator = '\u2028', '\u2029'

// separateLines replaces Unicode's line and paragraph separators by newlines.
func separateLines(text string) string {
	return strings.Map(func(r rune) rune {
		if r == lineSeparator || r == paragraphSeparator {
			return '\n'
		}
		return r
	}, text)
}

// isPlain reports whether there is nothing to clean, as in most outputs.
func isPlain(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r != '\n' && keepVisible(r) != r }) < 0
}

// overwrite returns what a line shows after its last carriage return.
func overwrite(line string) string {
	line = strings.TrimRight(line, "\r")
	return line[strings.LastIndexByte(line, '\r')+1:]
}

// keepVisible drops control characters except tabs, and invisible characters. Those change the
// direction of the text around them, which can make code read as something else, or hide a
// text from people but not from models. It keeps joiners and the common variation selectors,
// which scripts and emojis need.
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

// cut shortens a text to about most bytes. It keeps the head and the tail, as whole lines if
// lines are short, and states between them how much is missing.
func cut(text string, most int) (short string, missing int) {
	if len(text) <= most {
		return text, 0
	}
	head := text[:wholeLines(text, most/2)]
	tail := lastLines(text, most/2)
	missing = len(text) - len(head) - len(tail)
	return fmt.Sprintf("%s\n[... %s of %s bytes are left out here ...]\n%s",
		strings.TrimSuffix(head, "\n"), Grouped(int64(missing)), Grouped(int64(len(text))), tail), missing
}

// wholeLines returns how many of the first most bytes are whole lines, or at least whole
// characters.
func wholeLines(text string, most int) int {
	if end := strings.LastIndexByte(text[:most], '\n'); end > most/2 {
		return end + 1
	}
	return execution.RuneStart(text, most)
}

// lastLines returns about the last most bytes: whole lines, or at least whole characters.
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

// LastLine returns the last line of an output that shows something, cut to about most bytes.
func LastLine(output string, most int) string {
	text := strings.TrimRightFunc(Clean(output), unicode.IsSpace)
	line := text[strings.LastIndexByte(text, '\n')+1:]
	if len(line) > most {
		return line[:wholeLines(line, most)] + "..."
	}
	return line
}

// Grouped formats a number with commas between its thousands.
func Grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// Duration formats a duration in words.
func Duration(d time.Duration) string {
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}} {
		if d >= 2*unit.size || d == unit.size {
			n := int64(d / unit.size)
			if n == 1 {
				return "1 " + unit.name
			}
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}
