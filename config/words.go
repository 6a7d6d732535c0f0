package config

import (
	"errors"
	"strings"
)

// shellWords splits a text into words as a POSIX shell does, without expanding anything, as
// Python's shlex.split does.
func shellWords(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune // the quote that is open, or 0
	inWord, escaped := false, false
	for _, char := range text {
		switch {
		case escaped:
			if quote == '"' && char != '"' && char != '\\' {
				word.WriteByte('\\')
			}
			word.WriteRune(char)
			escaped = false
		case char == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && char == quote:
			quote = 0
		case quote == 0 && (char == '"' || char == '\''):
			quote, inWord = char, true
		case quote == 0 && strings.ContainsRune(" \t\r\n", char):
			if inWord {
				words = append(words, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteRune(char)
			inWord = true
		}
	}
	switch {
	case quote != 0:
		return nil, errors.New("a quote is not closed")
	case escaped:
		return nil, errors.New("nothing follows the last backslash")
	case inWord:
		words = append(words, word.String())
	}
	return words, nil
}
