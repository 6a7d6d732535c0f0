package render

import (
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Bounds of the HTML that is shown as text.
const (
	maxPages     = 3    // of one answer
	maxPageBytes = 2000 // of each
)

// addDisplayed appends the HTML of values that a model knows nothing else of: their text
// names their class alone, and they have no picture. A program prints the other forms that
// are text.
func (p *page) addDisplayed() {
	shown := 0
	for _, forms := range p.outcome.Result.Displayed {
		html, ok := onlyHTML(forms)
		if !ok || shown == maxPages {
			continue
		}
		shown++
		p.text.section("[HTML]\n%s\n", Clean(execution.ClipTo(html, maxPageBytes)))
	}
}

// onlyHTML returns the HTML of a value that has no other form that a model can read.
func onlyHTML(forms []execution.Representation) (html string, ok bool) {
	for _, form := range forms {
		switch {
		case form.Type == "text/html":
			html, ok = strings.ToValidUTF8(string(form.Data), "\uFFFD"), true
		case form.Type == "text/plain" && strings.HasPrefix(string(form.Data), "<") && strings.HasSuffix(string(form.Data), ">"):
		default:
			return "", false
		}
	}
	return html, ok
}
