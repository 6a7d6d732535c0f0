package runner

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestOutput(t *testing.T) {
	const bad = "\uFFFD"
	for name, test := range map[string]struct {
		limit  int
		chunks []string
		want   string
	}{
		"nothing":                             {4, nil, ""},
		"less than the limit":                 {4, []string{"abc"}, "abc"},
		"exactly the limit":                   {4, []string{"abcd"}, "abcd"},
		"exactly the limit, in parts":         {4, []string{"a", "bcd"}, "abcd"},
		"one byte more":                       {4, []string{"abcde"}, "abcd" + truncated},
		"one byte more, later":                {4, []string{"abcd", "e"}, "abcd" + truncated},
		"much more":                           {4, []string{"abc", "defgh", "ijk"}, "abcd" + truncated},
		"the supervisor cut it":               {4, []string{"ab", ""}, "ab" + truncated},
		"cut before anything":                 {4, []string{""}, truncated},
		"a character at the limit":            {4, []string{"abé"}, "abé"},
		"a cut in a character of two bytes":   {4, []string{"abcé"}, "abc" + truncated},
		"a cut in a character of three bytes": {4, []string{"ab€"}, "ab" + truncated},
		"a cut in a character of four bytes":  {4, []string{"a😀"}, "a" + truncated},
		"a cut between characters":            {4, []string{"ééé"}, "éé" + truncated},
		"a character in two frames":           {9, []string{"a\xe2\x82", "\xacb"}, "a€b"},
		"half a character at the end":         {9, []string{"a\xe2\x82"}, "a" + bad + bad},
		"a byte that is no UTF-8":             {9, []string{"a\xffb"}, "a" + bad + "b"},
		"each such byte":                      {9, []string{"\xff\xfe\x80\x80"}, bad + bad + bad + bad},
		"an overlong slash":                   {9, []string{"\xc0\xaf"}, bad + bad},
		"half of a surrogate pair":            {9, []string{"\xed\xa0\x80"}, bad + bad + bad},
		"a cut after continuation bytes":      {4, []string{"\x80\x80\x80\x80\x80"}, bad + bad + bad + bad + truncated},
		"a cut after a byte that is no UTF-8": {4, []string{"abc\xffd"}, "abc" + bad + truncated},
		"a replacement character of its own":  {9, []string{"a" + bad}, "a" + bad},
		"NUL and control characters are kept": {9, []string{"\x00\x1b[2J\r\n"}, "\x00\x1b[2J\r\n"},
		"nothing fits":                        {0, []string{"a"}, truncated},
	} {
		t.Run(name, func(t *testing.T) {
			o := output{limit: test.limit}
			var told strings.Builder
			for _, chunk := range test.chunks {
				o.add([]byte(chunk))
				news := o.news()
				if !utf8.ValidString(news) {
					t.Errorf("the news %q split a character", news)
				}
				told.WriteString(news)
			}
			if rest, ok := strings.CutPrefix(o.text(), told.String()); !ok || strings.TrimSuffix(rest, truncated) != "" && name != "half a character at the end" {
				t.Errorf("the news are %q, and %q comes later", told.String(), rest)
			}
			if got := o.text(); got != test.want {
				t.Errorf("%q", got)
			}
			if len(o.data) > test.limit {
				t.Errorf("%d bytes are kept of at most %d", len(o.data), test.limit)
			}
		})
	}
}

func FuzzOutput(f *testing.F) {
	f.Add(4, []byte("abé"), []byte("€"))
	f.Add(3, []byte("\xff\xfe"), []byte{})
	f.Add(0, []byte("a"), []byte("b"))
	f.Fuzz(func(t *testing.T, limit int, one, two []byte) {
		if limit < 0 || limit > 1000 {
			return
		}
		o := output{limit: limit}
		o.add(one)
		news := o.news()
		o.add(two)
		news += o.news()
		text := o.text()
		if !strings.HasPrefix(text, news) {
			t.Errorf("the news %q do not begin %q", news, text)
		}
		if !utf8.ValidString(text) || len(o.data) > limit {
			t.Errorf("%q of %d bytes", text, len(o.data))
		}
		whole := len(one) > 0 && len(two) > 0 && len(one)+len(two) <= limit
		if strings.HasSuffix(text, truncated) == whole && !strings.HasSuffix(string(two), truncated) {
			t.Errorf("whole is %v, the text %q", whole, text)
		}
		if joined := string(one) + string(two); whole && utf8.ValidString(joined) && text != joined {
			t.Errorf("%q became %q", joined, text)
		}
	})
}
