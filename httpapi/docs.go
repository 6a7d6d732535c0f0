package httpapi

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strings"
)

// The pages that render /openapi.json in a browser. They load nothing from other hosts.
var (
	//go:embed docspage/page.html
	docsPage string
	//go:embed docspage/page.css
	docsStyle string
	//go:embed docspage/page.js
	docsScript string
)

// docsPages returns the value of data-mode of each page, by its path. /docs has forms that
// send requests; /redoc has none.
func docsPages() map[string]string { return map[string]string{"/docs": "try", "/redoc": "reference"} }

func (a *api) registerDocs() {
	for path, mode := range docsPages() {
		a.handle("GET "+path, policy{public: true}, serveDocs(mode))
	}
}

// serveDocs serves a page in a mode. Its Content-Security-Policy allows the style and the
// script of the page by their hashes, so that no other script runs, whatever a program
// prints.
func serveDocs(mode string) http.HandlerFunc {
	page := strings.NewReplacer("{{mode}}", mode, "{{style}}", docsStyle, "{{script}}", docsScript).Replace(docsPage)
	policy := "default-src 'none'; style-src " + sourceHash(docsStyle) + "; script-src " + sourceHash(docsScript) +
		"; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", policy)
		_, _ = w.Write([]byte(page)) // the client may be gone
	}
}

// sourceHash returns the source expression for a text in a Content-Security-Policy.
func sourceHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
