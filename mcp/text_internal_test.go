package mcp

import (
	"strings"
	"testing"
)

func TestClean(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"plain":                   {"a\tb\n", "a\tb\n"},
		"colours":                 {"\x1b[1;31mred\x1b[0m", "red"},
		"a cursor's moves":        {"a\x1b[2K\x1b[1Gb\x1b[?25l", "ab"},
		"sub-parameters":          {"\x1b[38:2::1:2:3mx", "x"},
		"a character set":         {"\x1b(Bx\x1b7y\x1b=z", "xyz"},
		"a title":                 {"\x1b]0;title\x07x", "x"},
		"a link":                  {"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"},
		"a device's answer":       {"\x1bP1$r0m\x1b\\x", "x"},
		"8-bit controls":          {"\u009b31mred\u009b0m \u009d0;t\u009cx", "red x"},
		"a string without an end": {"a\x1b]0;title\nb\nc", "a␛]0;title\nb\nc"},
		"other strings":           {"\x1bPa\n\x1b_b\n\x1b^c\n\x1bXd\n", "␛Pa\n␛_b\n␛^c\n␛Xd\n"},
		"8-bit ones":              {"\u0090a\n\u009fb\n", "␛a\n␛b\n"},
		"an end too far off":      {"\x1b]0;" + strings.Repeat("x", 600) + "\x07y", "␛]0;" + strings.Repeat("x", 600) + "y"},
		"a sequence too long":     {"\x1b[" + strings.Repeat("1", 600) + "my", "␛[" + strings.Repeat("1", 600) + "my"},
		"a sequence broken off":   {"\x1b[31\nx\x1b[é", "␛[31\nx␛[é"},
		"an escape at the end":    {"x\x1b", "x␛"},
		"two escapes":             {"\x1b\x1b[31mx", "␛x"},
		"carriage returns":        {" 10%\r 20%\rdone\r\n", "done\n"},
		"a line that is cleared":  {"working\r\x1b[K", "working"},
		"control characters":      {"a\x00\x07\x7f\u0085b", "ab"},
		"directions":              {"\u202eabc\u2066\u061c\u200e\u200fd", "abcd"},
		"what has no width":       {"a\u200bb\u2060c\ufeffd\u00ade\u3164f\u034fg", "abcdefg"},
		"tags":                    {"a\U000e0041\U000e0042\U000e007fb\U000e0101c", "abc"},
		"line separators":         {"a\u2028b\u2029c", "a\nb\nc"},
		"what scripts need":       {"\u0646\u06cc\u200c\u062e 👩\u200d🔬 ☀\ufe0f \u06dd1", "\u0646\u06cc\u200c\u062e 👩\u200d🔬 ☀\ufe0f \u06dd1"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := clean(test.text); got != test.want {
				t.Errorf("%q", got)
			}
		})
	}
}
