package render

import "strings"

// This is not github.com/charmbracelet/x/ansi (tried: v0.11.9). Its Strip removes everything
// after an unterminated string, keeps the 8-bit controls (U+009B), and links a table of
// character widths that adds 20 ms to the start of each process.

// longestEscape bounds an escape sequence, in bytes. Those that programs print for people are
// shorter. A sequence without an end must not remove the rest of the output.
const longestEscape = 512

// visibleEscape replaces an escape character that starts no sequence.
const visibleEscape = "␛"

// stripEscapes removes escape sequences (ECMA-48). Each must end within its line.
func stripEscapes(text string) string {
	var out strings.Builder
	for {
		start := strings.IndexFunc(text, beginsEscape)
		if start < 0 {
			break
		}
		out.WriteString(text[:start])
		kind, rest := introducer(text[start:])
		if end := escapeEnd(kind, rest[:min(len(rest), longestEscape)]); end >= 0 {
			text = rest[end:]
			continue
		}
		out.WriteString(visibleEscape)
		if text[start] == '\x1b' {
			text = text[start+1:]
		} else {
			text = rest
		}
	}
	out.WriteString(text)
	return out.String()
}

// beginsEscape reports whether a character is the escape, or one that stands for it and a
// second character: U+009B is the same as ESC [.
func beginsEscape(r rune) bool {
	switch r {
	case '\x1b', '\u0090', '\u0098', '\u009b', '\u009d', '\u009e', '\u009f':
		return true
	}
	return false
}

// introducer returns the character that follows the escape at the start of a text, and the
// rest.
func introducer(text string) (kind byte, rest string) {
	if text[0] != '\x1b' { // two bytes, of which the second is the character
		return text[1] - 0x40, text[2:]
	}
	if len(text) == 1 {
		return 0, ""
	}
	return text[1], text[2:]
}

// escapeEnd returns where a sequence of some kind ends in the rest of the text, or -1.
func escapeEnd(kind byte, rest string) int {
	switch {
	case kind == '[':
		return finalAfter(rest, 0x20, 0x3f, 0x40) // parameters and intermediate bytes
	case strings.IndexByte("]PX^_", kind) >= 0:
		return stringEnd(rest)
	case kind >= 0x20 && kind <= 0x2f:
		return finalAfter(rest, 0x20, 0x2f, 0x30)
	case kind >= 0x30 && kind <= 0x7e:
		return 0
	}
	return -1
}

// finalAfter returns where a sequence ends, or -1. It ends after the first byte from final to
// 0x7e. All bytes before it must be from low to high.
func finalAfter(rest string, low, high, final byte) int {
	for i := range len(rest) {
		switch c := rest[i]; {
		case c >= final && c <= 0x7e:
			return i + 1
		case c < low || c > high:
			return -1
		}
	}
	return -1
}

// stringEnd returns where a string for the terminal, such as a title, ends, or -1.
func stringEnd(rest string) int {
	line, _, _ := strings.Cut(rest, "\n")
	end := -1
	for _, terminator := range []string{"\a", "\x1b\\", "\u009c"} {
		if i := strings.Index(line, terminator); i >= 0 && (end < 0 || i+len(terminator) < end) {
			end = i + len(terminator)
		}
	}
	return end
}
