package render

import (
	"strings"
	"testing"
	"time"
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
			if got := Clean(test.text); got != test.want {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestCut(t *testing.T) {
	for name, test := range map[string]struct {
		text    string
		most    int
		want    string
		missing int
	}{
		"short":      {"abc", 3, "abc", 0},
		"lines":      {"1\n2\n3\n4\n5\n6\n7\n8\n9\n", 8, "1\n2\n[... 10 of 18 bytes are left out here ...]\n8\n9\n", 10},
		"one line":   {"0123456789", 4, "01\n[... 6 of 10 bytes are left out here ...]\n89", 6},
		"characters": {"éééééééé", 6, "é\n[... 12 of 16 bytes are left out here ...]\né", 12},
		"nothing":    {"abc", 0, "\n[... 3 of 3 bytes are left out here ...]\n", 3},
	} {
		t.Run(name, func(t *testing.T) {
			if got, missing := cut(test.text, test.most); got != test.want || missing != test.missing {
				t.Errorf("%d: %q", missing, got)
			}
		})
	}
}

func FuzzClean(f *testing.F) {
	for _, seed := range []string{"plain\n", "\x1b[31mred\x1b[0m", "a\rb", "\x1b]0;title", "\xff\x9b31m", "\x1b]\nx\u009b3\nm", "\u202e\x00\u009b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ToValidUTF8(text, "\ufffd") // as all output is
		cleaned := Clean(text)
		if !isPlain(cleaned) || Clean(cleaned) != cleaned {
			t.Errorf("%q becomes %q", text, cleaned)
		}
		if strings.Count(cleaned, "\n") < strings.Count(text, "\n") {
			t.Errorf("%q loses lines: %q", text, cleaned)
		}
	})
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1: "-1", -999: "-999", -1000: "-1,000"} {
		if got := Grouped(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Hour: "1 hour", 24 * time.Hour: "24 hours", 90 * time.Minute: "90 minutes", 61 * time.Second: "61 seconds",
		time.Minute: "1 minute", 1500 * time.Millisecond: "1500 ms", time.Second: "1 second",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%v is %s", d, got)
		}
	}
}
