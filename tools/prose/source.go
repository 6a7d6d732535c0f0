package main

import (
	"go/scanner"
	"go/token"
	"strings"
)

// goPassages returns the comments and string literals of Go source. Line comments
// that follow each other are one passage.
func goPassages(source string) []passage {
	files := token.NewFileSet()
	file := files.AddFile("", files.Base(), len(source))
	var s scanner.Scanner
	s.Init(file, []byte(source), func(token.Position, string) {}, scanner.ScanComments)
	var all []passage
	for {
		at, kind, text := s.Scan()
		line := file.Line(at)
		switch kind {
		case token.EOF:
			return all
		case token.COMMENT:
			text = strings.TrimPrefix(strings.TrimPrefix(text, "//"), " ")
			if last := len(all) - 1; last >= 0 && all[last].isDoc && all[last].line+strings.Count(all[last].text, "\n")+1 == line {
				all[last].text += "\n" + text
				continue
			}
			all = append(all, passage{text, line, true})
		case token.STRING:
			if strings.Contains(text, " ") {
				all = append(all, passage{text: text, line: line})
			}
		default:
		}
	}
}

// pythonPassages returns the comments and string literals of Python source.
func pythonPassages(source string) []passage {
	var all []passage
	line := 1
	for len(source) > 0 {
		size := 1
		switch {
		case strings.HasPrefix(source, `"""`):
			size = literal(source, `"""`)
		case source[0] == '"', source[0] == '\'':
			size = literal(source, source[:1])
		case source[0] == '#':
			size = len(source)
			if end := strings.IndexByte(source, '\n'); end >= 0 {
				size = end
			}
		}
		text := source[:size]
		if size > 1 && strings.Contains(text, " ") {
			last := len(all) - 1
			if text[0] == '#' && last >= 0 && all[last].text[0] == '#' && all[last].line+strings.Count(all[last].text, "\n")+1 == line {
				all[last].text += "\n" + strings.TrimPrefix(text, "# ")
			} else {
				all = append(all, passage{text: text, line: line})
			}
		}
		line += strings.Count(text, "\n")
		source = source[size:]
	}
	return all
}

// literal returns the length of the literal that source begins with.
func literal(source, quote string) int {
	for i := len(quote); i < len(source); i++ {
		switch {
		case source[i] == '\\':
			i++
		case strings.HasPrefix(source[i:], quote):
			return i + len(quote)
		}
	}
	return len(source)
}
