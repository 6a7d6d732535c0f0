package mcp

import "strings"

// longestEscape bounds an escape sequence, in bytes: those that programs print to
// be looked at are shorter, and one that has no end must not take the rest of the
// output with it.
const longestEscape = 512

// visibleEscape is shown for an escape character that begins no sequence.
const visibleEscape = "␛"

// stripEscapes takes out escape sequences (ECMA-48), each within its line.
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

// beginsEscape says whether a character is the escape, or one that stands for it
// and another: U+009B is the same as ESC [.
func beginsEscape(r rune) bool {
	switch r {
	case '\x1b', '\u0090', '\u0098', '\u009b', '\u009d', '\u009e', '\u009f':
		return true
	}
	return false
}

// introducer gives what the escape that a text begins with is followed by, and
// the rest.
func introducer(text string) (kind byte, rest string) {
	if text[0] != '\x1b' { // two bytes, of which the second is the character
		return text[1] - 0x40, text[2:]
	}
	if len(text) == 1 {
		return 0, ""
	}
	return text[1], text[2:]
}

// escapeEnd gives where the rest of a sequence ends, or -1.
func escapeEnd(kind byte, rest string) int {
	switch {
	case kind == '[':
		return finalAfter(rest, 0x20, 0x3f, 0x40) // parameters, and others between
	case strings.IndexByte("]PX^_", kind) >= 0:
		return stringEnd(rest)
	case kind >= 0x20 && kind <= 0x2f:
		return finalAfter(rest, 0x20, 0x2f, 0x30)
	case kind >= 0x30 && kind <= 0x7e:
		return 0
	}
	return -1
}

// finalAfter gives where a sequence ends: behind a byte from final to 0x7e, before
// which there are only some from low to high.
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

// stringEnd gives where a string for the terminal, such as a title, ends.
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
