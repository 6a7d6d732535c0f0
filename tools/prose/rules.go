package main

import (
	"fmt"
	"regexp"
	"strings"
)

// rule is a construction that is not to be written.
type rule struct {
	pattern string
	reason  string
	// except are words that make a match plain English.
	except string
}

// rules lists the constructions. Patterns ignore case, and a space in them matches
// any white space.
func rules() []rule {
	return []rule{
		{`\b(has|have|having) (\w+ ){1,4}be\b`, `"has X be Y": write "makes X Y" or name the action`, ` to be$`},
		{`(\w+ )?\b(is|are|was|were) no \w+`, `"is no Z": write "is not a Z"`, `^there |no (longer|more)$`},
		{`\b(to|can|cannot|could|may|might|must) be had\b`, `"to be had": write "available"`, ``},
		{`\bbut for\b`, `"but for": write "except"`, ``},
		{`\bfor want of\b`, `"for want of": write "without" or "because there is no"`, ``},
		{`\bas \w+( \w+){0,4} as (there )?may\b`, `"as may": name the limit`, ``},
		{`\b(take|takes|taken|took|taking) (\w+ ){1,4}for (a|an|dead|gone|lost|one|the|what)\b`, `"take X for Y": write "treats X as Y"`, `takes? (\w+ )*(time|memory|room|place)`},
		{`\bnobody\b`, `"nobody": name who cannot, or write "no client", "no program"`, ``},
		{`\bwhoever\b`, `"whoever": name who`, ``},
		{`\b(hear|hears|heard)\b`, `"hear": write "receive" or "read"`, ``},
		{`\b(say|says|tell|tells) (whether|which|how|what|why)\b`, `"say", "tell": write "report", "return" or "name"`, ``},
		{`\b(is|are|was|be) told\b`, `"told": write "receives"`, ``},
		{`('s|own|last|a) word\b`, `"word": write "message", "report" or "answer"`, ``},
	}
}

// docRules apply to the first sentence of a Go comment.
func docRules() []rule {
	return []rule{
		{`^\w+ gives\b`, `"X gives": write "X returns"`, ``},
		{`^\w+ (says|tells)\b`, `"X says": write "X reports" or "X returns"`, ``},
	}
}

// passage is a text that belongs together, such as a comment, with its first line.
type passage struct {
	text  string
	line  int
	isDoc bool // a comment of Go
}

func (p passage) findings() []string {
	all := rules()
	if p.isDoc {
		all = append(docRules(), all...)
	}
	var found []string
	for _, r := range all {
		pattern := regexp.MustCompile(`(?i)` + strings.ReplaceAll(r.pattern, " ", `\s+`))
		for _, at := range pattern.FindAllStringIndex(p.text, -1) {
			match := strings.Join(strings.Fields(p.text[at[0]:at[1]]), " ")
			if r.except != "" && regexp.MustCompile(`(?i)`+r.except).MatchString(match) {
				continue
			}
			line := p.line + strings.Count(p.text[:at[0]], "\n")
			found = append(found, fmt.Sprintf("%d: %q: %s", line, match, r.reason))
		}
	}
	return found
}
