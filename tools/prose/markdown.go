package main

import (
	"regexp"
	"strings"
)

// paragraphs returns the paragraphs, headings, items of lists and rows of tables of
// Markdown, without blocks of code.
func paragraphs(source string) []passage {
	item := regexp.MustCompile(`^\s*([-*]|\d+\.) |^#|^\|`)
	var all []passage
	open, code := false, false
	for i, line := range strings.Split(source, "\n") {
		switch blank := strings.TrimSpace(line) == ""; {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			code, open = !code, false
		case code || blank:
			open = false
		case !open && strings.HasPrefix(line, "    "): // a block of code
		case open && !item.MatchString(line):
			all[len(all)-1].text += "\n" + line
		default:
			all = append(all, passage{text: line, line: i + 1})
			open = !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "|")
		}
	}
	return all
}

// averageWords returns how many words the sentences of a document have on average.
// Headings and tables do not count, and code in a line counts as one word.
func averageWords(passages []passage) float64 {
	code, end := regexp.MustCompile("`[^`]*`"), regexp.MustCompile(`[.!?]["')*_]*(\s|$)`)
	words, sentences := 0, 0
	for _, p := range passages {
		if strings.HasPrefix(p.text, "#") || strings.HasPrefix(p.text, "|") {
			continue
		}
		for _, sentence := range end.Split(code.ReplaceAllString(p.text, "code"), -1) {
			if n := len(strings.Fields(strings.TrimLeft(sentence, "-*0123456789. "))); n > 0 {
				words += n
				sentences++
			}
		}
	}
	if sentences == 0 {
		return 0
	}
	return float64(words) / float64(sentences)
}
